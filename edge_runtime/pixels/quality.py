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
    return Reason.TOO_SMALL if min(box[2] - box[0], box[3] - box[1]) < limits.min_face else None


def too_poor(pixels: NDArray[np.uint8], limits: QualityLimits) -> Reason | None:
    """Return TOO_DARK or TOO_BLURRED if the model's pixels, uint8 [H, W, 3], don't show enough."""
    green = pixels[:, :, 1]
    if float(green[::4, ::4].mean()) < limits.min_light:
        return Reason.TOO_DARK
    return Reason.TOO_BLURRED if detail(green) < limits.min_detail else None


def detail(grey: NDArray[np.uint8]) -> float:
    """Return the mean absolute second difference of `grey`, uint8 [H, W], along every fourth row and column."""
    rows = grey[::4].astype(np.int16)
    columns = grey[:, ::4].astype(np.int16)
    along_rows = np.abs(2 * rows[:, 1:-1] - rows[:, :-2] - rows[:, 2:]).mean()
    along_columns = np.abs(2 * columns[1:-1] - columns[:-2] - columns[2:]).mean()
    return float(along_rows + along_columns) / 2
