"""Follows faces from frame to frame by the overlap of their boxes, so that a verdict doesn't flicker."""

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_runtime.defaults import WINDOW
from edge_runtime.pixels.boxes import Box, overlaps

CUT = 18.0
"""Mean change in grey levels that counts as a cut. Measured: at most 11 within a shot (people walking, handheld
cameras), at least 24 at cuts."""


@dataclass
class Track:
    """One face over time.

    Attributes:
        number: unique within the source.
        box: where the face was seen last.
        seen: when that was, in seconds.
        judged: time, logit (fake − real), distance and extremes (see ScoredFace) of each judged frame in the window.
    """

    number: int
    box: Box
    seen: float
    judged: deque[tuple[float, float, float, tuple[float, float] | None]] = field(default_factory=deque)

    @property
    def logit(self) -> float | None:
        """The interquartile mean of the window's logits; None if no frame could be judged."""
        return trimmed_mean([logit for _, logit, *_ in self.judged]) if self.judged else None

    @property
    def distance(self) -> float:
        """The interquartile mean of the window's distances; 0 if no frame could be judged."""
        return trimmed_mean([distance for _, _, distance, _ in self.judged]) if self.judged else 0.0

    @property
    def extremes(self) -> tuple[float, float] | None:
        """The interquartile means of the window's extremes; None if no frame has any."""
        found = [extremes for *_, extremes in self.judged if extremes]
        return (trimmed_mean([low for low, _ in found]), trimmed_mean([high for _, high in found])) if found else None


class Shots:
    """Finds the cuts in a video."""

    def __init__(self) -> None:
        self._before: NDArray[np.int16] | None = None

    def is_new(self, picture: Image.Image) -> bool:
        """Return whether `picture` begins a shot: it differs from the one before by CUT grey levels on average."""
        few = picture.resize((128, 72), Image.Resampling.NEAREST).resize((16, 9), Image.Resampling.BOX)
        before, self._before = self._before, np.asarray(few, np.int16)
        return before is not None and float(np.abs(self._before - before).mean()) >= CUT


class TrackNumbers(dict[str, Iterator[int]]):
    """For each source the numbers of its next tracks, from 1; trackers that share it never use one twice."""

    def __missing__(self, source: str) -> Iterator[int]:
        return self.setdefault(source, itertools.count(1))


class Tracker:
    """Matches the faces of each frame of one source to existing tracks.

    Args:
        min_overlap: two boxes with at least this intersection over union are the same face.
        max_gap_s: a face unseen for longer than this is dropped, and logits older than this are forgotten.
        window: how many of a face's last judged frames its verdict uses.
        numbers: of the tracks; None begins with 1.
    """

    def __init__(
        self,
        *,
        min_overlap: float = 0.3,
        max_gap_s: float = 2.0,
        window: int = WINDOW,
        numbers: Iterator[int] | None = None,
    ) -> None:
        self.min_overlap, self.max_gap_s, self.window = min_overlap, max_gap_s, window
        self._tracks: list[Track] = []
        self._numbers = numbers or itertools.count(1)

    def update(self, boxes: Sequence[Box], now: float) -> list[Track]:
        """Return the track of each of `boxes`, all from one frame taken at `now` (seconds)."""
        self._tracks = [track for track in self._tracks if now - track.seen <= self.max_gap_s]
        known = list(self._tracks)
        matches = match(boxes, [track.box for track in known], self.min_overlap)
        updated = []
        for index, box in enumerate(boxes):
            if index in matches:
                track = known[matches[index]]
            else:
                track = Track(next(self._numbers), box, now)
                self._tracks.append(track)
            track.box, track.seen = box, now
            # A face can stay in view and yet be too dark or too small to be judged.
            while track.judged and track.judged[0][0] < now - self.max_gap_s:
                track.judged.popleft()
            updated.append(track)
        return updated

    def judge(
        self, track: Track, logit: float, distance: float = 0.0, extremes: tuple[float, float] | None = None
    ) -> None:
        """Add what the latest frame says to `track`, see ScoredFace."""
        track.judged.append((track.seen, logit, distance, extremes))
        while len(track.judged) > self.window:
            track.judged.popleft()

    @property
    def tracks(self) -> Sequence[Track]:
        """The tracks that have not ended."""
        return self._tracks

    def forget(self) -> None:
        """Drop every track; numbers are not reused."""
        self._tracks = []


def match(boxes: Sequence[Box], others: Sequence[Box], min_overlap: float) -> dict[int, int]:
    """Pair indices of `boxes` with indices of `others` that overlap enough, best pairs first."""
    pairs = [(value, i, j) for i, box in enumerate(boxes) for j, value in enumerate(overlaps(box, others))]
    found: dict[int, int] = {}
    for value, i, j in sorted(pairs, key=lambda pair: -pair[0]):
        if value >= min_overlap and i not in found and j not in found.values():
            found[i] = j
    return found


def trimmed_mean(values: Sequence[float]) -> float:
    """Return the interquartile mean: the mean of the middle half of `values`, which must not be empty."""
    ordered = np.sort(np.asarray(values, dtype=float))
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean())
