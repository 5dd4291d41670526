"""Frames per second over the last few seconds."""

import time
from collections import deque
from collections.abc import Callable

MIN_SPAN_S = 0.5
"""A rate over a shorter time is meaningless."""


class RollingRate:
    """Counts events over a sliding window of monotonic time."""

    def __init__(self, window_s: float = 5.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._window_s, self._clock = window_s, clock
        self._times: deque[float] = deque()

    def add(self) -> None:
        """Count one event, now."""
        self._times.append(self._clock())
        self._drop_old()

    @property
    def per_second(self) -> float:
        """Events per second over the window; 0 during the first half second."""
        self._drop_old()
        if len(self._times) < 2:
            return 0.0
        span_s = self._clock() - self._times[0]
        return (len(self._times) - 1) / span_s if span_s >= MIN_SPAN_S else 0.0

    def _drop_old(self) -> None:
        oldest = self._clock() - self._window_s
        while self._times and self._times[0] < oldest:
            self._times.popleft()
