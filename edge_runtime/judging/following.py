"""Follows the boxes of faces from one small grey copy to the next, between two searches for faces."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_runtime.pixels.boxes import Box
from edge_runtime.sources.opencv import cv2
from edge_runtime.sources.view import Glance

POINTS = 4
"""Points along each side of the grid that is followed within a box."""

INNER = 0.7
"""The grid's share of the box: its edge shows the background, which moves otherwise."""

WINDOW = (15, 15)
"""Pixels around a point that are compared."""

LEAST = 0.4
"""With less than this share of its points found again, a box counts as lost."""

Grey = NDArray[np.uint8]


def follow(before: Glance, now: Glance, boxes: Sequence[Box]) -> list[Box] | None:
    """Return where `boxes`, in pixels of the picture `before`, are in the picture `now`; None if one is lost.

    Each box moves by the median of its points' optical flow (Lucas, Kanade 1981, in pyramids) and keeps its size.
    """
    if before.grey.shape != now.grey.shape or before.size != now.size:
        return None
    if not boxes:
        return []
    scale = before.grey.shape[1] / before.size[0]
    corners = np.asarray(boxes, np.float32).reshape(-1, 2, 2) * scale
    centres, sides = corners.mean(axis=1), corners[:, 1] - corners[:, 0]
    steps = np.linspace(-INNER / 2, INNER / 2, POINTS, dtype=np.float32)
    grid = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(1, -1, 2)
    points = (centres[:, None] + grid * sides[:, None]).reshape(-1, 1, 2)
    moved, found, _ = cv2.calcOpticalFlowPyrLK(before.grey, now.grey, points, np.empty_like(points), winSize=WINDOW)
    flow = (moved - points).reshape(len(boxes), -1, 2) / scale
    kept = found.reshape(len(boxes), -1) > 0
    followed = []
    for box, shifts, seen in zip(boxes, flow, kept, strict=True):
        if seen.mean() < LEAST:
            return None
        x, y = np.median(shifts[seen], axis=0).tolist()
        left, top = max(0.0, box[0] + x), max(0.0, box[1] + y)
        right, bottom = min(float(now.size[0]), box[2] + x), min(float(now.size[1]), box[3] + y)
        if right - left < 1.0 or bottom - top < 1.0:
            return None
        followed.append((left, top, right, bottom))
    return followed
