"""Stopwatches: how long frames take, one after the other or many at once."""

import hashlib
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure.cases import Limits

T = TypeVar("T")
R = TypeVar("R")

WORK = bytes(1 << 14)
"""What a brake hashes: so much at a time that Python lets other threads go on meanwhile."""


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


class Brake:
    """Slows frames by a share of what they take, as a change of the code would.

    One after the other, a frame is followed by a sleep. Where frames are computed side by side a sleep of one is filled
    by the others, so there it is work: of the processor time that this process has taken since the last frame.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._lock, self._start, self._burnt = threading.Lock(), time.process_time(), 0.0

    def sleep(self, step: Callable[[T], R]) -> Callable[[T], R]:
        """Return `step` with a sleep after it."""

        def slowed(given: T) -> R:
            before = time.perf_counter()
            result = step(given)
            time.sleep(self._share * (time.perf_counter() - before))
            return result

        return slowed if self._share else step

    def work(self, step: Callable[[T], R]) -> Callable[[T], R]:
        """Return `step` with work after it."""

        def slowed(given: T) -> R:
            result = step(given)
            self.burn()
            return result

        return slowed if self._share else step

    def burn(self) -> None:
        """Compute until the share of what this process has computed otherwise is reached."""
        if not self._share:
            return
        with self._lock:
            # What other threads still have to burn counts as burnt: seen as work it would be burnt for in turn.
            work = time.process_time() - self._start - self._burnt
            wanted = max(0.0, self._share * work - self._burnt)
            self._burnt += wanted
        end = time.thread_time() + wanted
        while time.thread_time() < end:
            hashlib.sha256(WORK)


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
