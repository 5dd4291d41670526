"""Boxes in pixels and how much they overlap."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels; right and bottom are exclusive."""


def areas(boxes: ArrayLike) -> NDArray[np.floating]:
    """Return the area of each of `boxes` [N, 4]."""
    corners = np.asarray(boxes).reshape(-1, 4)
    area: NDArray[np.floating] = np.prod(corners[:, 2:] - corners[:, :2], axis=1)
    return area


def intersections(box: Sequence[float] | NDArray[np.floating], boxes: ArrayLike) -> NDArray[np.floating]:
    """Return the area that `box` shares with each of `boxes` [N, 4]."""
    one, others = np.asarray(box), np.asarray(boxes).reshape(-1, 4)
    sides = np.minimum(one[2:], others[:, 2:]) - np.maximum(one[:2], others[:, :2])
    shared: NDArray[np.floating] = np.prod(np.clip(sides, 0, None), axis=1)
    return shared


def overlaps(box: Sequence[float] | NDArray[np.floating], boxes: ArrayLike) -> NDArray[np.floating]:
    """Return the intersection over union of `box` with each of `boxes` [N, 4], in [0, 1]; 0 for empty boxes."""
    shared = intersections(box, boxes)
    union = areas(box) + areas(boxes) - shared
    return np.divide(shared, union, out=np.zeros(len(shared)), where=union > 0)
