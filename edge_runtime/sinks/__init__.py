"""Where results go: each sink is a context manager that is written to frame by frame.

To add one: write a class that satisfies `Sink` in a module of its own, and give it an option in `edge_runtime.cli`.
"""

from types import TracebackType
from typing import Any, Protocol

from edge_runtime.pipeline import Judged


class Sink(Protocol):
    """What takes results. Writing never raises for a full disk: what could not be written is counted."""

    @property
    def lost(self) -> int:
        """Results that could not be written."""

    def write(self, judged: Judged) -> None:
        """Take one result, and have it on its way to the disk or screen when this returns."""

    def __enter__(self) -> Any: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
