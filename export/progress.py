"""How an export shows its progress."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from train.data.catalog import Quarantined, left_out_lines
from train.parallel import Advance, progress_bar


class Steps:
    """Follows the steps of an export; this one shows nothing."""

    @contextmanager
    def step(self, title: str, total: int = 0) -> Iterator[Advance]:
        """Run a block as a step of `total` parts; the block calls what it gets with the number just finished."""
        yield lambda count: None

    def note(self, text: str) -> None:
        """Show a sentence."""

    def left_out(self, files: Sequence[Quarantined]) -> None:
        """Show which pictures could not be used."""


class Printed(Steps):
    """Prints a line with its time for each step that is done, and a bar meanwhile where there is a terminal."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.broken = False
        """Whether any picture could not be read."""

    @contextmanager
    def step(self, title: str, total: int = 0) -> Iterator[Advance]:
        """Run the block under a bar, then print its line."""
        started = time.monotonic()
        with progress_bar(title, total or 1) as advance:
            yield advance
        print(f"{title} … {time.monotonic() - started:.1f} s", file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """Print a line."""
        print(text, file=sys.stderr, flush=True)

    def left_out(self, files: Sequence[Quarantined]) -> None:
        """Print a line for each of the first ones."""
        self.broken = any(file.broken for file in files)
        for line in left_out_lines([(file.path, file.reason) for file in files]):
            self.note(line)

    @property
    def total_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started
