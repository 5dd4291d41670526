"""What a live frame is worth: whether to look at it, whether to search it for faces, which faces to judge.

Pure policy on times and numbers, without pictures or threads; `edge_runtime.judging.live` carries it out.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_runtime.defaults import WINDOW
from edge_runtime.judging.results import Reason

SEARCH_S = 0.2
"""Time between two searches for faces while the same ones are found: a new face is found within 0.4 s, even if one
search misses it."""

STEADY_SEARCHES = 3
"""So many searches in a row must find the same tracks before fewer frames are searched."""

FRESH = 3
"""A track judged fewer times is new, and comes before all others."""

OVERDUE_S = 0.4
"""A track unjudged for longer comes before uncertain ones, so that each is judged at least twice a second."""

CLEAR_S = 0.1
"""A track with a clear verdict is judged about this often, which fills a window of 15 logits in 1.5 s."""

MOVED, CALM = 1.0, 0.5
"""Grey levels of change (see `Stillness`) that end rest, and below which the picture may come to rest."""

CELL_SHARE = 8.0
"""One cell counts like the mean if it changes this much more: a small face far away."""

REST_AFTER_S, RECHECK_S = 1.0, 5.0
"""A picture must be calm this long before it rests, and is still looked at this often."""

WAIT_FRAMES = 1.5
"""A frame waits for its logits until it is this many frame intervals old; later ones count for the next frames."""


class Searches:
    """Decides which frames are searched for faces."""

    def __init__(self) -> None:
        self._same, self._found, self._searched = 0, frozenset[int](), float("-inf")

    def due(self, now: float, interval_s: float) -> bool:
        """Return whether a frame taken at `now` is searched: each until the tracks are steady, then every k-th."""
        return self._same < STEADY_SEARCHES or now - self._searched >= SEARCH_S - interval_s / 2

    def searched(self, now: float, tracks: Sequence[int]) -> None:
        """Note the numbers of the tracks that the search of a frame taken at `now` found."""
        found = frozenset(tracks)
        self._same = self._same + 1 if found == self._found else 1
        self._found, self._searched = found, now

    def unsettle(self) -> None:
        """Search every frame again until the tracks are steady."""
        self._same = 0


class Stillness:
    """Finds out from small grey copies whether the picture rests.

    Change is the mean absolute difference from a reference in grey levels, or an eighth of the largest cell's if that
    is more. The reference is the last copy that differed by CALM; rest ends when the change from it exceeds MOVED.
    """

    def __init__(self) -> None:
        self._reference: NDArray[np.int16] | None = None
        self._calm_since, self.resting = 0.0, False

    def update(self, cells: NDArray[np.integer], now: float, *, settled: bool) -> bool:
        """Return whether the picture rests.

        Args:
            cells: means over the cells of a grid, [h, w], grey levels.
            now: when the picture was taken, in seconds.
            settled: whether nothing is left to find out about it; without this, rest does not begin.
        """
        seen = cells.astype(np.int16)
        if self._reference is None or self._reference.shape != seen.shape:
            change = float("inf")
        else:
            difference = np.abs(seen - self._reference)
            change = max(float(difference.mean()), float(difference.max()) / CELL_SHARE)
        if change > (MOVED if self.resting else CALM):
            self._reference, self._calm_since, self.resting = seen, now, False
        elif settled and now - self._calm_since >= REST_AFTER_S:
            self.resting = True
        return self.resting


@dataclass
class Standing:
    """What is known of a track's need to be judged.

    Attributes:
        looks: how many of its faces were given to the classifier, or found too poor for it.
        looked: when the last one was taken, in seconds.
        judged: when the last one that was answered was taken; None if there is none.
        uncertain: whether its verdict is uncertain, or the last frame alone says something else.
        reason: why the last one could not be judged, else None.
    """

    looks: int = 0
    looked: float = float("-inf")
    judged: float | None = None
    uncertain: bool = True
    reason: Reason | None = None

    def wants(self, now: float, interval_s: float) -> bool:
        """Return whether a face taken at `now` is worth a look."""
        is_clear = self.looks >= WINDOW and not self.uncertain
        return not is_clear or now - self.looked >= CLEAR_S - interval_s / 2


def neediest(standings: Sequence[Standing], count: int, now: float) -> list[int]:
    """Return the indices of the `count` standings that need most to be judged, in their own order.

    First new tracks, then overdue ones, then those unjudged for longest, where an uncertain one counts twice.
    """

    def need(index: int) -> tuple[int, float]:
        standing = standings[index]
        age_s = now - standing.looked
        if standing.looks < FRESH:
            return 2, -standing.looks
        return (1, age_s) if age_s >= OVERDUE_S else (0, age_s * (2.0 if standing.uncertain else 1.0))

    return sorted(sorted(range(len(standings)), key=need, reverse=True)[:count])


class CropBudget:
    """Estimates how many crops the classifier answers in a given time; shared by all live sources.

    A device that computes `parallel` crops at once works in waves of about the same length.
    """

    def __init__(self) -> None:
        self._lock, self._outstanding = threading.Lock(), 0
        self._wave_s: float | None = None

    def room(self, left_s: float, parallel: int, *, overdue: bool = False) -> int:
        """Return how many crops may be given to the device now.

        Args:
            left_s: seconds until the answers should be there.
            parallel: how many crops the device computes at once.
            overdue: a track waits too long: let one wave wait for the running one.
        """
        waves = 0 if self._wave_s is None else int(min(max(left_s, 0.0) / self._wave_s, 1e4))
        # An idle device gets work even if it is too slow for the frame: late is better than never.
        least = 2 if overdue and self._wave_s is not None else 1
        return max(0, max(waves, least) * parallel - self._outstanding)

    def started(self, crops: int) -> int:
        """Note that `crops` were given to the device; return how many it has now."""
        with self._lock:
            self._outstanding += crops
            return self._outstanding

    def finished(self, crops: int, seconds: float, waves: int) -> None:
        """Note that `crops` were answered after `seconds`, the time of so many `waves`."""
        wave_s = max(seconds / max(waves, 1), 1e-4)
        with self._lock:
            self._outstanding -= crops
            self._wave_s = wave_s if self._wave_s is None else 0.8 * self._wave_s + 0.2 * wave_s
