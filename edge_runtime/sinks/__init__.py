"""Where results go: each sink is a context manager that gets one result after the other.

To add one: inherit from `Sink` in a new module, and add its option to `edge_runtime.cli`.
"""

from typing import TypeVar

from edge_runtime.judging.summary import FileVerdicts
from edge_runtime.pipeline import Judged
from edge_runtime.sinks.disk import Losses

S = TypeVar("S", bound="Sink")


class Sink:
    """Takes results. A full disk never raises: `losses` counts what could not be written."""

    def __init__(self, name: object) -> None:
        self.losses = Losses(name)

    def write(self, judged: Judged) -> None:
        """Take one result, and pass it to the disk or screen before this returns."""
        raise NotImplementedError

    def conclude(self, files: FileVerdicts) -> None:
        """Take the verdicts on whole files, when all sources have ended; by default nothing is written."""
        return

    def close(self) -> None:
        """Finish the output."""

    def __enter__(self: S) -> S:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
