"""Shows how far a run is: a bar on a terminal, else a line now and then."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from edge_runtime.bulk.rows import Counts

LINE_S = 30.0
"""Pause between two lines where there is no terminal, as in the log of a batch system."""


Show = Callable[[int, Counts, int, int], None]
"""Takes the parts done, the counts of all of them, the pictures judged by this run, and those still to be judged."""


def figures(total: Counts, fresh: int, remaining: int, seconds: float) -> str:
    """Return rate, time left and errors by kind, such as "812.0 pictures/s, 3 min left, unreadable: 4 broken"."""
    parts = []
    if fresh and seconds > 0:
        left = remaining * seconds / fresh
        parts = [f"{fresh / seconds:.1f} pictures/s", f"{duration(left)} left"]
    if total.unreadable:
        kinds = ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in total.unreadable.most_common())
        parts.append(f"unreadable: {kinds}")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Return seconds as s, min, h or days."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


@contextmanager
def shown(parts: int, *, quiet: bool) -> Iterator[Show]:
    """Show progress over `parts` on standard error while the block runs."""
    began = last = time.monotonic()
    console = Console(stderr=True)
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("parts"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[text]}"),
    )
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal, transient=True) as progress:
        task = progress.add_task("", total=parts, text="")

        def show(done: int, total: Counts, fresh: int, remaining: int) -> None:
            nonlocal last
            now = time.monotonic()
            text = figures(total, fresh, remaining, now - began)
            progress.update(task, completed=done, text=text)
            if not quiet and not console.is_terminal and now - last >= LINE_S:
                print(f"part {done:,} of {parts:,}, {text}", file=sys.stderr, flush=True)
                last = now

        yield show
