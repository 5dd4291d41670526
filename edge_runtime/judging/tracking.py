"""The same face over time: boxes that overlap from frame to frame, and a verdict that does not flicker."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from edge_runtime.defaults import WINDOW

Box = tuple[float, float, float, float]


@dataclass
class Track:
    """One face over time: where it was seen last, and when its last judged frames had which logit (fake − real)."""

    number: int
    box: Box
    seen: float
    judged: deque[tuple[float, float]] = field(default_factory=deque)

    def add(self, logit: float, window: int) -> None:
        """Remember the logit of the frame in which it was seen last, of at most `window`."""
        self.judged.append((self.seen, logit))
        while len(self.judged) > window:
            self.judged.popleft()

    def forget_before(self, oldest: float) -> None:
        """Forget what was judged before `oldest`: a face may be seen on and on and yet be judged no more."""
        while self.judged and self.judged[0][0] < oldest:
            self.judged.popleft()

    @property
    def logit(self) -> float | None:
        """The robust mean of the window's logits; None where no frame could be judged."""
        return trimmed_mean([logit for _, logit in self.judged]) if self.judged else None


class Tracker:
    """Matches the faces of each frame of one source to the tracks before it, by overlap.

    Args:
        min_overlap: intersection over union from which two boxes are the same face.
        max_gap_s: seconds after which a face that was not seen is forgotten, and of one that was, what was judged.
        window: judged frames that a verdict is made from.
    """

    def __init__(self, *, min_overlap: float = 0.3, max_gap_s: float = 2.0, window: int = WINDOW) -> None:
        self.min_overlap, self.max_gap_s, self.window = min_overlap, max_gap_s, window
        self._tracks: list[Track] = []
        self._next = 1

    def update(self, boxes: Sequence[Box], now: float) -> list[Track]:
        """Return the track of each of `boxes`, all of one frame taken at `now` (monotonic seconds)."""
        self._tracks = [track for track in self._tracks if now - track.seen <= self.max_gap_s]
        matches = match(boxes, [track.box for track in self._tracks], self.min_overlap)
        known = list(self._tracks)
        return [self._seen(known[matches[i]] if i in matches else None, box, now) for i, box in enumerate(boxes)]

    def _seen(self, track: Track | None, box: Box, now: float) -> Track:
        if track is None:
            track = Track(self._next, box, now)
            self._next += 1
            self._tracks.append(track)
        track.box, track.seen = box, now
        track.forget_before(now - self.max_gap_s)
        return track

    def forget(self) -> None:
        """Forget every track; numbers go on."""
        self._tracks = []

    def judge(self, track: Track, logit: float) -> None:
        """Add a judged frame's logit to `track`."""
        track.add(logit, self.window)


def match(boxes: Sequence[Box], others: Sequence[Box], min_overlap: float) -> dict[int, int]:
    """Return the index in `others` for each index of `boxes` that overlaps one, the best pairs first."""
    pairs = [(overlap(box, other), i, j) for i, box in enumerate(boxes) for j, other in enumerate(others)]
    found: dict[int, int] = {}
    for value, i, j in sorted(pairs, key=lambda pair: -pair[0]):
        if value >= min_overlap and i not in found and j not in found.values():
            found[i] = j
    return found


def overlap(one: Box, other: Box) -> float:
    """Return intersection over union of two boxes, in [0, 1]."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / (_area(one) + _area(other) - shared)


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def trimmed_mean(values: Sequence[float]) -> float:
    """Return the mean of the middle half of `values` (the interquartile mean), at least one of them."""
    ordered = np.sort(np.asarray(values, dtype=float))
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean())
