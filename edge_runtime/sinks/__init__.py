"""Where results go: each sink is a context manager that gets one result after the other.

To add one: inherit from `Sink` in a new module, and add its option to `edge_runtime.cli`.
"""

from types import TracebackType
from typing import Protocol, TypeVar

from edge_runtime.pipeline import Judged

S = TypeVar("S", bound="Sink")


class Sink(Protocol):
    """What takes results. A full disk never raises: results that could not be written are counted."""

    @property
    def lost(self) -> int:
        """Results that could not be written."""

    def write(self, judged: Judged) -> None:
        """Take one result, and pass it to the disk or screen before this returns."""

    def close(self) -> None:
        """Finish the output."""

    def __enter__(self: S) -> S:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
