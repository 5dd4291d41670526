"""What parent and worker send each other, pickled, over one connection."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edge_runtime.errors import EdgeError

Advance = Callable[[int], None]
"""Called with the number of steps just finished."""


class WorkerError(EdgeError):
    """A job that raised something other than an EdgeError, or a worker process that died."""


@dataclass(frozen=True)
class Call:
    """Parent to worker: run `job(*arguments)`, with `advance=` where the parent wants to see progress.

    Attributes:
        job: a module-level function; the worker imports its module.
        arguments: anything that can be pickled.
        wants_progress: whether the job gets `advance`.
    """

    job: Callable[..., Any]
    arguments: tuple[Any, ...]
    wants_progress: bool


@dataclass(frozen=True)
class Advanced:
    """Worker to parent: `count` more steps are done."""

    count: int


@dataclass(frozen=True)
class Returned:
    """Worker to parent: the job returned `value`."""

    value: Any


@dataclass(frozen=True)
class Raised:
    """Worker to parent: the job raised `error`; the worker stays alive."""

    error: EdgeError
