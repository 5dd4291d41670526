"""Stopwatches: how long frames take, one after the other or many at once."""

import itertools
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.cases import Limits

T = TypeVar("T")


@dataclass(frozen=True)
class Timing:
    """What a stopwatch saw: how many frames in how many seconds, and each frame's own latency in milliseconds [N]."""

    seconds: float
    latencies_ms: NDArray[np.float64]

    @property
    def frames(self) -> int:
        """Return how many frames were done."""
        return len(self.latencies_ms)

    @property
    def fps(self) -> float:
        """Return frames a second."""
        return self.frames / self.seconds


class Clock:
    """Says when a timing is over; it starts when it is made."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.start = time.perf_counter()

    def goes_on(self, frames: int) -> bool:
        """Whether another frame is to be started after `frames`; at least one always is."""
        if frames == 0:
            return True
        return frames < self._limits.frames and time.perf_counter() - self.start < self._limits.seconds

    def stop(self, latencies_s: Sequence[float]) -> Timing:
        """Return what was seen."""
        return Timing(time.perf_counter() - self.start, 1000.0 * np.asarray(latencies_s, np.float64))


def one_by_one(step: Callable[[T], object], inputs: Sequence[T], limits: Limits) -> Timing:
    """Time `step` on `inputs`, in a circle, one after the other."""
    clock, latencies = Clock(limits), list[float]()
    for given in itertools.cycle(inputs):
        if not clock.goes_on(len(latencies)):
            break
        before = time.perf_counter()
        step(given)
        latencies.append(time.perf_counter() - before)
    return clock.stop(latencies)


def in_batches(step: Callable[[list[T]], object], inputs: Sequence[T], limits: Limits, size: int) -> Timing:
    """Time `step` on batches of `size`; each frame's latency is its batch's."""
    clock, latencies, circle = Clock(limits), list[float](), itertools.cycle(inputs)
    while clock.goes_on(len(latencies)):
        batch = list(itertools.islice(circle, size))
        before = time.perf_counter()
        step(batch)
        latencies.extend([time.perf_counter() - before] * size)
    return clock.stop(latencies)


def in_threads(step: Callable[[T], object], inputs: Sequence[T], limits: Limits, threads: int) -> Timing:
    """Time `step` on `inputs`, in a circle, in `threads` threads at once."""

    def timed(given: T) -> float:
        before = time.perf_counter()
        step(given)
        return time.perf_counter() - before

    with ThreadPoolExecutor(threads) as pool:
        clock, latencies = Clock(limits), list[float]()
        waiting: deque[Future[float]] = deque()
        for started, given in enumerate(itertools.cycle(inputs)):
            if not clock.goes_on(started):
                break
            waiting.append(pool.submit(timed, given))
            if len(waiting) >= 2 * threads:
                latencies.append(waiting.popleft().result())
        latencies.extend(future.result() for future in waiting)
        return clock.stop(latencies)
