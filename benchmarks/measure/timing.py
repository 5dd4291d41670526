"""Times frames one by one, in batches or in threads."""

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

from benchmarks.measure.cases import TimingLimits

T = TypeVar("T")
R = TypeVar("R")

WORK = bytes(1 << 14)
"""The data that `Brake` hashes, large enough that hashlib releases the GIL."""


@dataclass(frozen=True)
class Timing:
    """The duration of a timing and the latency of each frame in milliseconds [N]."""

    seconds: float
    latencies_ms: NDArray[np.float64]

    @property
    def frames(self) -> int:
        """The number of frames."""
        return len(self.latencies_ms)

    @property
    def fps(self) -> float:
        """Frames per second."""
        return self.frames / self.seconds


class Clock:
    """Decides when a timing ends; it starts at construction."""

    def __init__(self, limits: TimingLimits) -> None:
        self._limits = limits
        self.start = time.perf_counter()

    def goes_on(self, frames: int) -> bool:
        """Whether to start another frame after `frames` frames; the first one always is."""
        if frames == 0:
            return True
        return frames < self._limits.frames and time.perf_counter() - self.start < self._limits.seconds

    def stop(self, latencies_s: Sequence[float]) -> Timing:
        """Return the timing of frames with these latencies in seconds."""
        return Timing(time.perf_counter() - self.start, 1000.0 * np.asarray(latencies_s, np.float64))


class Brake:
    """Slows frames by a share of their own time, as slower code would.

    One by one, a frame is followed by a sleep. In parallel the other frames would fill a sleep, so the brake computes
    instead: a share of the CPU time that this process has used.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._lock, self._start, self._burnt = threading.Lock(), time.process_time(), 0.0

    def sleep(self, step: Callable[[T], R]) -> Callable[[T], R]:
        """Return `step` followed by a sleep."""

        def slowed(given: T) -> R:
            before = time.perf_counter()
            result = step(given)
            time.sleep(self._share * (time.perf_counter() - before))
            return result

        return slowed if self._share else step

    def work(self, step: Callable[[T], R]) -> Callable[[T], R]:
        """Return `step` followed by computing."""

        def slowed(given: T) -> R:
            result = step(given)
            self.burn()
            return result

        return slowed if self._share else step

    def burn(self) -> None:
        """Compute until the brake's share of this process's other CPU time is reached."""
        if not self._share:
            return
        with self._lock:
            # Count what other threads are still burning as burnt; it would otherwise be taken for work and slowed
            # again.
            work = time.process_time() - self._start - self._burnt
            wanted = max(0.0, self._share * work - self._burnt)
            self._burnt += wanted
        end = time.thread_time() + wanted
        while time.thread_time() < end:
            hashlib.sha256(WORK)


def one_by_one(step: Callable[[T], object], inputs: Sequence[T], limits: TimingLimits) -> Timing:
    """Time `step` on `inputs`, repeated as often as needed, one by one."""
    return in_batches(lambda batch: step(batch[0]), inputs, limits, 1)


def in_batches(step: Callable[[list[T]], object], inputs: Sequence[T], limits: TimingLimits, size: int) -> Timing:
    """Time `step` on batches of `size` inputs; each frame's latency is its batch's."""
    clock, latencies, circle = Clock(limits), list[float](), itertools.cycle(inputs)
    while clock.goes_on(len(latencies)):
        batch = list(itertools.islice(circle, size))
        before = time.perf_counter()
        step(batch)
        latencies.extend([time.perf_counter() - before] * size)
    return clock.stop(latencies)


def in_threads(step: Callable[[T], object], inputs: Sequence[T], limits: TimingLimits, threads: int) -> Timing:
    """Time `step` on `inputs`, repeated as often as needed, in `threads` threads."""

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
