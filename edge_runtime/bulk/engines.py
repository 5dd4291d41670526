"""Engines give parts to workers; `Processes` runs them on this machine."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Protocol

from edge_runtime.bulk.judge import Outcome, PartWorker
from edge_runtime.bulk.parts import Job, Part, PictureList

MAX_DEATHS = 10
"""A part is given up after so many workers died of it."""


class WorkerPool(Protocol):
    """Runs parts on workers, in any order, each with one detector that stays loaded."""

    def run(self, job: Job, pictures: PictureList, numbers: Sequence[int]) -> Iterator[Outcome]:
        """Yield the outcome of each of the parts in `numbers`; the part of a worker that dies goes to another."""


class Queue:
    """The parts that are still to be given out."""

    def __init__(self, pictures: PictureList, numbers: Sequence[int]) -> None:
        self._pictures, self._numbers, self._again = pictures, iter(numbers), list[int]()
        self._deaths: dict[int, int] = {}

    def take(self) -> Part | None:
        """Return the next part; None if there is none."""
        number = self._again.pop() if self._again else next(self._numbers, None)
        return None if number is None else self._pictures.part(number)

    def died(self, number: int) -> Outcome | None:
        """Give out part `number` again, since its worker died; return a failure if that happened too often."""
        self._deaths[number] = self._deaths.get(number, 0) + 1
        if self._deaths[number] < MAX_DEATHS:
            self._again.append(number)
            return None
        return Outcome(number, error=f"{MAX_DEATHS} workers died of part {number}; out of memory?")


class Processes:
    """Worker processes on this machine."""

    def __init__(self, workers: int) -> None:
        self._workers = workers

    def run(self, job: Job, pictures: PictureList, numbers: Sequence[int]) -> Iterator[Outcome]:
        """Yield outcomes; the workers end with the iterator."""
        queue, busy = Queue(pictures, numbers), dict[Connection, tuple[SpawnProcess, int]]()
        try:
            for _ in range(min(self._workers, len(numbers))):
                _give(queue, busy, *_started(job))
            while busy:
                for ready in wait(list(busy)):
                    assert isinstance(ready, Connection)
                    process, number = busy.pop(ready)
                    try:
                        outcome = ready.recv()
                    except (EOFError, OSError):
                        _end(process, ready)
                        outcome = queue.died(number)
                        process, ready = _started(job)
                    _give(queue, busy, process, ready)
                    if outcome is not None:
                        yield outcome
        finally:
            for connection, (process, _) in busy.items():
                _end(process, connection)


def _started(job: Job) -> tuple[SpawnProcess, Connection]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(job, theirs), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def _give(
    queue: Queue, busy: dict[Connection, tuple[SpawnProcess, int]], process: SpawnProcess, connection: Connection
) -> None:
    """Send the next part to a worker, or end it if there is none."""
    part = queue.take()
    if part is None:
        _end(process, connection)
        return
    # If the worker is dead already, the next read says so.
    with contextlib.suppress(OSError):
        connection.send(part)
    busy[connection] = (process, part.number)


def _end(process: SpawnProcess, connection: Connection) -> None:
    connection.close()
    process.kill()
    process.join()


def _work(job: Job, connection: Connection) -> None:
    """Judge what arrives until the other end closes: the worker process."""
    # A terminal sends Ctrl-C to every process; only the parent reacts to it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    worker = PartWorker(job)
    with contextlib.suppress(EOFError, OSError):
        while True:
            connection.send(worker.judge(connection.recv()))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
