"""Work on many files in parallel in a bounded amount of memory, with a progress bar."""

import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Item = TypeVar("Item")
Result = TypeVar("Result")
Advance = Callable[[int], None]
"""Receives how many more items are done."""

AHEAD = 8
"""Items in flight per worker: enough that none waits, few enough to fit in memory."""


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int | None = None, *, processes: bool = False
) -> Iterator[Result]:
    """Yield `function(item)` for each item, in order.

    Threads are enough where the time goes into decoding, hashing or inference, which release Python's lock. Use
    `processes` for work that holds it; function, items and results must then be picklable.
    """
    count = workers or os.cpu_count() or 1
    pool: Executor
    if processes:
        # A terminal sends Ctrl-C to every process; only the parent reacts to it.
        pool = ProcessPoolExecutor(count, get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN))
    else:
        pool = ThreadPoolExecutor(count)
    with pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= count * AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


@contextmanager
def progress_bar(title: str, total: int) -> Iterator[Advance]:
    """Show a progress bar on standard error while the block runs; show nothing without a terminal."""
    shown = sys.stdout.isatty() and sys.stderr.isatty()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not shown, transient=True) as progress:
        task = progress.add_task(title, total=total)
        yield lambda count: progress.advance(task, count)
