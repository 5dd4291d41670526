"""Work on many files side by side with a bounded amount of memory, and a bar that shows how far it is."""

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
"""Told how many more are done."""

AHEAD = 8
"""Items in flight for each worker: enough that none waits, few enough to hold in memory."""


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int | None = None, *, processes: bool = False
) -> Iterator[Result]:
    """Yield `function` of each item in order, computed by threads at most AHEAD items ahead each.

    Threads suffice where decoding, hashing or inference take the time, outside Python's lock; `processes` are for work
    that holds it, and want a function, items and results that can be pickled.
    """
    count = workers or os.cpu_count() or 1
    with _pool(count, processes=processes) as pool:
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


def _pool(count: int, *, processes: bool) -> Executor:
    if not processes:
        return ThreadPoolExecutor(count)
    # Ctrl-C reaches every process of a terminal; only the first one answers it.
    ignore = (signal.SIGINT, signal.SIG_IGN)
    return ProcessPoolExecutor(count, get_context("spawn"), signal.signal, ignore)


@contextmanager
def progress_bar(title: str, total: int) -> Iterator[Advance]:
    """Show a bar on standard error while the block runs; nothing where there is no terminal."""
    shown = sys.stdout.isatty() and sys.stderr.isatty()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not shown, transient=True) as progress:
        task = progress.add_task(title, total=total)
        yield lambda count: progress.advance(task, count)
