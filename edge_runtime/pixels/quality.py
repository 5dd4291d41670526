"""Whether a face shows enough to be judged: its size, and light and detail of the pixels that the model is shown."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_runtime.defaults import MIN_FACE_PX


@dataclass(frozen=True)
class QualityLimits:
    """Below these a face is not judged.

    Attributes:
        min_face: pixels of the face box's shorter side, in the frame.
        min_light: mean of the green channel, in [0, 255].
        min_detail: mean size of the second difference along rows and columns of the green channel, in grey levels.
    """

    min_face: int = MIN_FACE_PX
    min_light: float = 24.0
    min_detail: float = 1.0


DEFAULT_LIMITS = QualityLimits()


def too_small(box: Sequence[float], limits: QualityLimits) -> str | None:
    """Return why a face at `box` (left, top, right, bottom) is too small, or None."""
    side = min(box[2] - box[0], box[3] - box[1])
    return f"face smaller than {limits.min_face} pixels" if side < limits.min_face else None


def too_poor(pixels: NDArray[np.uint8], limits: QualityLimits) -> str | None:
    """Return why the model's pixels, uint8 [H, W, 3], are too dark or too blurred, or None."""
    green = pixels[:, :, 1]
    if float(green[::4, ::4].mean()) < limits.min_light:
        return "too dark"
    return "too blurred" if detail(green) < limits.min_detail else None


def detail(grey: NDArray[np.uint8]) -> float:
    """Return the mean size of the second difference of `grey`, uint8 [H, W], along every fourth row and column."""
    rows = grey[::4].astype(np.int16)
    columns = grey[:, ::4].astype(np.int16)
    along_rows = np.abs(2 * rows[:, 1:-1] - rows[:, :-2] - rows[:, 2:]).mean()
    along_columns = np.abs(2 * columns[1:-1] - columns[:-2] - columns[2:]).mean()
    return float(along_rows + along_columns) / 2
