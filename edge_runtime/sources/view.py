"""What a live frame shows, in three steps of rising cost: a small grey copy, pixels to cut faces from, the picture."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

GLANCE = 320
"""Longer side of the grey copy, in pixels."""


@dataclass(frozen=True)
class Glance:
    """A small grey copy of a picture, uint8 [h, w], and the picture's own width and height."""

    grey: NDArray[np.uint8]
    size: tuple[int, int]


@runtime_checkable
class View(Protocol):
    """A frame that has arrived and is decoded as far as needed; each method raises PictureError if that fails."""

    def __call__(self) -> Image.Image:
        """Return the picture as RGB."""

    def pixels(self) -> Image.Image:
        """Return the same pixels in mode RGB or RGBX, whichever is cheaper; read-only."""

    def glance(self) -> Glance:
        """Return the small grey copy."""


def glance_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return width and height of the grey copy of a picture of `size`."""
    scale = min(1.0, GLANCE / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


class LoadedView:
    """The view of a frame that can only be decoded as a whole."""

    def __init__(self, load: Callable[[], Image.Image]) -> None:
        self._load = load

    @functools.cached_property
    def _picture(self) -> Image.Image:
        return self._load()

    def __call__(self) -> Image.Image:
        """Return the picture as RGB."""
        return self._picture

    pixels = __call__

    def glance(self) -> Glance:
        """Return the small grey copy: the mean of four green samples per pixel."""
        width, height = glance_size(self._picture.size)
        samples = self._picture.resize((2 * width, 2 * height), Image.Resampling.NEAREST).getchannel(1)
        return Glance(np.asarray(samples.reduce(2)), self._picture.size)
