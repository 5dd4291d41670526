"""The worker process, and what it and its parent send each other, pickled, over one connection.

It exits when the connection closes, also in the middle of a job: a parent that was killed leaves no worker behind.
"""

import os
import pickle
import queue
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from edge_runtime.errors import EdgeError

Advance = Callable[[int], None]
"""Called with the number of steps just finished."""


class WorkerError(EdgeError):
    """A job that raised something other than an EdgeError, or a worker process that died."""


@dataclass(frozen=True)
class Call:
    """Parent to worker: run `job(*arguments)`, with `advance=` where the parent wants to see progress."""

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


def main(descriptor: int) -> None:
    """Answer the calls that arrive on the socket `descriptor`, forever."""
    connection, calls = Connection(descriptor), queue.SimpleQueue[bytes]()

    def receive() -> None:
        try:
            while True:
                calls.put(connection.recv_bytes())
        except (EOFError, OSError):
            os._exit(0)

    threading.Thread(target=receive, daemon=True).start()
    progress = {"advance": lambda count: connection.send(Advanced(count))}
    while True:
        received, name = calls.get(), "unpickling"
        answer: Returned | Raised
        try:
            # Imports the job's module: OpenVINO must be imported in the main thread, not in the receiving one.
            call: Call = pickle.loads(received)
            name = call.job.__name__
            answer = Returned(call.job(*call.arguments, **(progress if call.wants_progress else {})))
        except EdgeError as error:
            answer = Raised(error)
        except Exception as error:
            traceback.print_exc()
            sys.stderr.flush()
            answer = Raised(WorkerError(f"{name} failed: {type(error).__name__}: {error}"))
        connection.send(answer)
