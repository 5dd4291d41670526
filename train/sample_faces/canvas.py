"""A canvas for anti-aliased shapes, and textures to paint them with."""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Pixels = NDArray[Any]
"""float32."""
Shade = Callable[[Pixels, Pixels], Pixels]
"""From x and y of each pixel [h, w] to colours [h, w, 3]."""
Paint = ArrayLike | Shade

OVERSAMPLING = 2
"""Pictures are drawn this many times larger and averaged down, so that edges are smooth."""

_SUBPIXEL_BITS = 4


class Canvas:
    """Pixels, RGB float32 [H, W, 3] in [0, 1], on which shapes are painted over one another."""

    def __init__(self, width: int, height: int) -> None:
        self.pixels: Pixels = np.zeros((height, width, 3), np.float32)

    def fill(self, points: ArrayLike, paint: Paint, *, opacity: float = 1.0, soft: float = 0.0) -> None:
        """Paint the polygon `points` ([N, 2] x and y in pixels), its edge blurred by `soft` pixels (sigma)."""
        corners = np.asarray(points, np.float64)
        height, width = self.pixels.shape[:2]
        margin = 3.0 * soft + 2.0
        left, top = np.maximum(np.floor(corners.min(0) - margin).astype(int), 0)
        right, bottom = np.minimum(np.ceil(corners.max(0) + margin).astype(int), (width, height))
        if right <= left or bottom <= top:
            return
        mask = np.zeros((bottom - top, right - left), np.uint8)
        fixed = np.round((corners - (left, top)) * (1 << _SUBPIXEL_BITS)).astype(np.int32)
        cv2.fillPoly(mask, [fixed], 255, lineType=cv2.LINE_AA, shift=_SUBPIXEL_BITS)
        weight: Pixels = mask.astype(np.float32) * (opacity / 255.0)
        if soft > 0.3:
            weight = cv2.GaussianBlur(weight, (0, 0), soft)
        if callable(paint):
            y, x = np.mgrid[top:bottom, left:right].astype(np.float32)
            colours = paint(x, y)
        else:
            colours = np.asarray(paint, np.float32)
        area = self.pixels[top:bottom, left:right]
        area += weight[..., None] * (colours - area)

    def stroke(self, points: ArrayLike, width: float, paint: Paint, *, opacity: float = 1.0, soft: float = 0.0) -> None:
        """Paint the open line `points` ([N, 2]), `width` pixels wide in the middle and tapering to its ends."""
        line = np.asarray(points, np.float64)
        along = np.gradient(line, axis=0)
        across = np.stack([-along[:, 1], along[:, 0]], 1)
        across /= np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-9)
        half = 0.5 * width * np.sqrt(np.sin(np.linspace(0.05, np.pi - 0.05, len(line))))[:, None]
        self.fill(
            np.concatenate([line + across * half, (line - across * half)[::-1]]), paint, opacity=opacity, soft=soft
        )


def ellipse(x: float, y: float, across: float, down: float, count: int = 48) -> NDArray[np.float64]:
    """Return an ellipse around (x, y) with these half axes, [count, 2]."""
    angle = np.linspace(0.0, 2.0 * np.pi, count, endpoint=False)
    return np.stack([x + across * np.cos(angle), y + down * np.sin(angle)], 1)


def arc(x: float, y: float, half_width: float, rise: float, count: int = 17) -> NDArray[np.float64]:
    """Return a parabola over [x − half_width, x + half_width] that rises (up is negative) by `rise`, [count, 2]."""
    place = np.linspace(-1.0, 1.0, count)
    return np.stack([x + half_width * place, y - rise * (1.0 - place**2)], 1)


def cloud(rng: np.random.Generator, width: int, height: int, coarsest: int, falloff: float = 0.6) -> Pixels:
    """Return noise of many scales [H, W], of about mean 0 and deviation 1, with blobs of up to `coarsest` pixels.

    Each octave is weaker than the next coarser one by `falloff`, as in photographs.
    """
    total, weight, scale = np.zeros((height, width), np.float32), 1.0, coarsest
    while scale >= 1:
        grid = rng.standard_normal((height // scale + 1, width // scale + 1)).astype(np.float32)
        total += weight * cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
        weight, scale = weight * falloff, scale // 2
    return total / max(float(total.std()), 1e-6)


def strands(rng: np.random.Generator, width: int, height: int, length: int) -> Pixels:
    """Return noise stretched downwards like hair, [H, W], mean 0 and deviation 1."""
    noise = rng.standard_normal((height, width)).astype(np.float32)
    drawn = cv2.GaussianBlur(noise, (0, 0), sigmaX=0.7, sigmaY=float(length))
    return drawn / max(float(drawn.std()), 1e-6)
