"""The queue in front of the detector: it batches the crops of all clients and refuses work when full."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge_runtime.inference.engine import Answer

log = logging.getLogger(__name__)

LARGEST_BATCH = 32
"""Most crops per batch; with more, the first clients would wait for the last."""

STUCK_S = 60.0
"""A device that takes longer for one batch counts as hanging."""

Compute = Callable[[NDArray[np.uint8]], Answer]
"""From crops, uint8 [N, H, W, 3], to one row per crop."""


class QueueFullError(Exception):
    """Too many crops are waiting."""


@dataclass(frozen=True)
class _Job:
    pixels: NDArray[np.uint8]
    compute: Compute
    future: "Future[Answer]" = field(default_factory=Future)


class BatchingQueue:
    """Runs the jobs of all clients in order of arrival, on one thread, in batches of up to LARGEST_BATCH crops.

    It never waits for a batch to fill up: the next batch gathers while one is being computed. With `waiting` crops
    waiting, further jobs are refused. `observe` is called with the number of crops in each batch.
    """

    def __init__(self, waiting: int, observe: Callable[[int], None] = lambda crops: None) -> None:
        self._limit, self._observe = waiting, observe
        self._changed = threading.Condition()
        self._jobs: deque[_Job] = deque()
        self._crops = 0
        self._closed = False
        self._batch_started: float | None = None
        self._thread = threading.Thread(target=self._run, name="detector", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Number of crops waiting."""
        return self._crops

    @property
    def full(self) -> bool:
        """Whether a job would be refused."""
        return self._crops >= self._limit

    @property
    def alive(self) -> bool:
        """Whether jobs are being worked on, no batch for longer than STUCK_S."""
        started = self._batch_started
        return self._thread.is_alive() and (started is None or time.monotonic() - started < STUCK_S)

    def submit(self, pixels: NDArray[np.uint8], compute: Compute, *, wait: bool = False) -> "Future[Answer]":
        """Queue `pixels`, uint8 [N, H, W, 3], for `compute`, in a batch with other jobs for the same function.

        Raises:
            QueueFullError: the queue is closed, or it is full and `wait` is not set.
        """
        job = _Job(pixels, compute)
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self._closed or not self.full)
            if self._closed or self.full:
                raise QueueFullError
            self._jobs.append(job)
            self._crops += len(pixels)
            self._changed.notify_all()
        return job.future

    def close(self) -> None:
        """Finish the current batch, cancel all waiting jobs and stop the thread."""
        with self._changed:
            self._closed = True
            for job in self._jobs:
                job.future.cancel()
            self._jobs.clear()
            self._crops = 0
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._take_batch():
            running = [job for job in batch if job.future.set_running_or_notify_cancel()]
            if not running:
                continue
            self._batch_started = time.monotonic()
            pixels = np.concatenate([job.pixels for job in running])
            self._observe(len(pixels))
            try:
                answer = running[0].compute(pixels)
            # Any error goes to the waiting callers; this thread must survive.
            except Exception as error:
                log.warning("the detector failed: %s", error)
                for job in running:
                    job.future.set_exception(error)
            else:
                start = 0
                for job in running:
                    job.future.set_result(answer.part(start, start := start + len(job.pixels)))
            self._batch_started = None

    def _take_batch(self) -> list[_Job]:
        """Wait for jobs and return the next ones that share a function; empty if the queue was closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closed)
            batch: list[_Job] = []
            crops = 0
            while self._jobs:
                following = self._jobs[0]
                too_large = crops + len(following.pixels) > LARGEST_BATCH
                if batch and (too_large or following.compute != batch[0].compute):
                    break
                batch.append(self._jobs.popleft())
                crops += len(following.pixels)
            self._crops -= crops
            self._changed.notify_all()
            return batch
