"""The one queue in front of the detector: crops of all clients are computed together, a full queue says so at once."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from edge_runtime.inference.engine import Answer

log = logging.getLogger(__name__)

LARGEST_BATCH = 32
"""Crops that are computed together. More would only make the first ones wait for the last."""

STUCK_S = 60.0
"""A device that computes one batch for longer counts as hanging."""

Compute = Callable[[NDArray[np.uint8]], Answer]
"""From pixels, uint8 [N, H, W, 3], to one row a crop, and what computed them."""


class QueueFullError(Exception):
    """Too much waits for the detector already."""


@dataclass(frozen=True)
class _Job:
    pixels: NDArray[np.uint8]
    compute: Compute
    future: "Future[Answer]" = field(default_factory=Future)


class BatchingQueue:
    """Feeds a detector with what all clients bring, in the order in which it came.

    One thread takes what waits, up to LARGEST_BATCH crops, and computes it in one go. It never waits for a batch to
    fill: while one is computed, the next gathers by itself.

    Args:
        waiting: crops that may wait; a job that finds as many waiting is refused.
        observe: called with the crops of each batch.
    """

    def __init__(self, waiting: int, observe: Callable[[int], None] = lambda crops: None) -> None:
        self._limit, self._observe = waiting, observe
        self._changed = threading.Condition()
        self._jobs: deque[_Job] = deque()
        self._crops = 0
        self._closed = False
        self._began: float | None = None
        self._thread = threading.Thread(target=self._run, name="detector", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Crops that wait."""
        return self._crops

    @property
    def full(self) -> bool:
        """Whether a job would be refused."""
        return self._crops >= self._limit

    @property
    def alive(self) -> bool:
        """Whether jobs are worked on, none for longer than STUCK_S."""
        began = self._began
        return self._thread.is_alive() and (began is None or time.monotonic() - began < STUCK_S)

    def submit(self, pixels: NDArray[np.uint8], compute: Compute, *, wait: bool = False) -> "Future[Answer]":
        """Let `compute` work on `pixels`, uint8 [N, H, W, 3], together with others that wait for the same.

        Raises:
            QueueFullError: as many crops wait already as may (with `wait`, until there is room), or it is closed.
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
        """End after the batch that is being computed; what waits is cancelled."""
        with self._changed:
            self._closed = True
            for job in self._jobs:
                job.future.cancel()
            self._jobs.clear()
            self._crops = 0
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._take():
            running = [job for job in batch if job.future.set_running_or_notify_cancel()]
            if running:
                self._began = time.monotonic()
                self._compute(running)
                self._began = None

    def _take(self) -> list[_Job]:
        """Return the next jobs, all for the same `compute`; none when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closed)
            batch: list[_Job] = []
            crops = 0
            while self._jobs and (not batch or self._fits(batch[0], crops)):
                batch.append(self._jobs.popleft())
                crops += len(batch[-1].pixels)
            self._crops -= crops
            self._changed.notify_all()
            return batch

    def _fits(self, first: _Job, crops: int) -> bool:
        following = self._jobs[0]
        return following.compute == first.compute and crops + len(following.pixels) <= LARGEST_BATCH

    def _compute(self, jobs: list[_Job]) -> None:
        pixels = np.concatenate([job.pixels for job in jobs]) if len(jobs) > 1 else jobs[0].pixels
        self._observe(len(pixels))
        try:
            answer = jobs[0].compute(pixels)
        # Whatever a device fails with belongs to those who wait; this thread must live on.
        except Exception as error:
            log.warning("the detector failed: %s", error)
            for job in jobs:
                job.future.set_exception(error)
            return
        start = 0
        for job in jobs:
            job.future.set_result(replace(answer, logits=answer.logits[start : start + len(job.pixels)]))
            start += len(job.pixels)
