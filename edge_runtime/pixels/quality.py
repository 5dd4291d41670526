"""Whether a face shows enough to be judged: its size, and the brightness and detail of the model's pixels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_runtime.defaults import MIN_FACE_PX
from edge_runtime.judging.results import Reason


@dataclass(frozen=True)
class QualityLimits:
    """A face below any of these is not judged.

    Attributes:
        min_face: shorter side of the face's box, in pixels of the frame.
        min_light: mean of the green channel, in [0, 255].
        min_detail: mean absolute second difference of the green channel along rows and columns, in grey levels.
    """

    min_face: int = MIN_FACE_PX
    min_light: float = 24.0
    min_detail: float = 1.0


DEFAULT_LIMITS = QualityLimits()


def too_small(box: Sequence[float], limits: QualityLimits) -> Reason | None:
    """Return TOO_SMALL if a face at `box` (left, top, right, bottom) is too small to be judged."""
    return Reason.TOO_SMALL if shorter_side((0, 0), box) < limits.min_face else None


def shorter_side(size: tuple[int, int], box: Sequence[float] | None) -> float:
    """Return the shorter side of a face at `box`; None is the whole picture of `size`."""
    return float(min(size) if box is None else min(box[2] - box[0], box[3] - box[1]))


def too_poor(pixels: NDArray[np.uint8], limits: QualityLimits) -> Reason | None:
    """Return TOO_DARK or TOO_BLURRED if the model's pixels, uint8 [H, W, 3], don't show enough."""
    green = pixels[:, :, 1]
    if mean_light(pixels) < limits.min_light:
        return Reason.TOO_DARK
    return Reason.TOO_BLURRED if detail(green) < limits.min_detail else None


def mean_light(pixels: NDArray[np.uint8]) -> float:
    """Return the mean of the green channel of `pixels`, uint8 [H, W, 3], at every fourth row and column."""
    return float(pixels[::4, ::4, 1].mean())


def measured_quality(pixels: NDArray[np.uint8], side: float) -> tuple[float, float, float]:
    """Return sharpness, blockiness and size of a face: of its `pixels`, uint8 [H, W, 3], and its shorter side."""
    green = pixels[:, :, 1]
    return sharpness(green), blockiness(green), float(side)


def sharpness(grey: NDArray[np.uint8]) -> float:
    """Return how sharp `grey`, uint8 [H, W], is, whatever it shows: about 0.67 if sharp, 0.33 if enlarged twofold.

    It is the detail of neighbouring pixels over that of pixels two apart, so 0.25 for whatever varies slowly.
    """
    return detail(grey) / (detail(grey, 2) + 0.01)


def blockiness(grey: NDArray[np.uint8]) -> float:
    """Return how much the blocks of JPEG show in `grey`, uint8 [H, W]: about 1 if not at all, 2 at quality 50.

    It is the mean second difference of the pixels' differences at the strongest of eight phases over that at the median
    one, along rows or columns, whichever is less (after Wang, Bovik 2000, "Blind measurement of blocking artifacts").
    """
    levels = grey.astype(np.int16)
    found = []
    for axis in (0, 1):
        jumps = np.abs(np.diff(levels, n=3, axis=axis))
        means = jumps.sum(axis=1 - axis, dtype=np.int32) / grey.shape[1 - axis]
        phases = means[: len(means) // 8 * 8].reshape(-1, 8).mean(axis=0)
        found.append(float(phases.max() / (np.median(phases) + 0.5)))
    return min(found)


def detail(grey: NDArray[np.uint8], lag: int = 1) -> float:
    """Return the mean absolute second difference of pixels `lag` apart, along every fourth row and column of `grey`."""
    means = []
    for lines in (grey[::4].T, grey[:, ::4]):
        levels = lines.astype(np.int16)
        jumps = np.abs(2 * levels[lag:-lag] - levels[: -2 * lag] - levels[2 * lag :])
        means.append(jumps.sum(dtype=np.int32) / jumps.size)
    return float(sum(means)) / 2
