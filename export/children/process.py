"""Start worker processes, each with its own environment (an instruction set holds for a whole process) and quiet."""

import contextlib
import importlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any, TypeVar

from board_setup.isa import capped_environment, emulator
from export.children.worker import Advance, Advanced, Call, Raised, Returned, WorkerError

Result = TypeVar("Result")

ROOT = Path(__file__).resolve().parents[2]
START = """
import sys
sys.path[:] = [sys.argv[1], *filter(None, sys.path)]
from export.children.worker import main
main(int(sys.argv[2]))
"""
"""Without the working folder on the path: a module of the same name there would be imported instead of ours."""


@contextlib.contextmanager
def start_worker(environment: Mapping[str, str]) -> Iterator["Worker"]:
    """Run a worker process with this environment while the block runs; it is killed at the end."""
    ours, theirs = Pipe()
    # The log has no name, so nothing is left of it when this process is killed.
    with tempfile.TemporaryFile() as log, ours:
        with theirs:
            process = subprocess.Popen(
                [*emulator(), sys.executable, "-c", START, str(ROOT), str(theirs.fileno())],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno()],
            )
        try:
            yield Worker(process, ours, log)
        finally:
            process.kill()
            process.wait()


class Worker:
    """A worker process that is running; `start_worker` makes it."""

    def __init__(self, process: subprocess.Popen[bytes], connection: Connection, log: IO[bytes]) -> None:
        self._process, self._connection, self._log = process, connection, log

    def run(self, job: Callable[..., Result], *arguments: Any, advance: Advance | None = None) -> Result:
        """Return `job(*arguments)`, computed in the worker.

        `job` is a module-level function; it is called with `advance=` where `advance` is given.

        Raises:
            EdgeError: what the job raised, with its class and message.
            WorkerError: the job raised something else, or the process died.
        """
        main = sys.modules["__main__"]
        if job.__module__ == "__main__" and main.__spec__:
            # `python -m MODULE`: the worker finds the job under its module's real name.
            job = getattr(importlib.import_module(main.__spec__.name), job.__qualname__)
        try:
            self._connection.send(Call(job, arguments, advance is not None))
            while True:
                answer = self._connection.recv()
                if isinstance(answer, Advanced) and advance:
                    advance(answer.count)
                elif isinstance(answer, Raised):
                    raise answer.error
                elif isinstance(answer, Returned):
                    value: Result = answer.value
                    return value
        except (EOFError, ConnectionError):
            code = self._process.wait()
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            self._log.seek(0)
            last = self._log.read().decode(errors="replace").strip().rpartition("\n")[2].strip() or "no output"
            raise WorkerError(f"{job.__name__} failed: its process {how}: {last[:200]}") from None


class Workers:
    """A worker for each instruction set, started when first needed; `start_workers` makes it.

    One worker does many jobs: importing NNCF takes longer than most of them.
    """

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._started: dict[str, Worker] = {}

    def run(
        self, job: Callable[..., Result], *arguments: Any, isa: str = "native", advance: Advance | None = None
    ) -> Result:
        """Return `job(*arguments)`, computed under `isa`, a key of `board_setup.isa.CAPS`; see `Worker.run`."""
        if isa not in self._started:
            self._started[isa] = self._stack.enter_context(start_worker(capped_environment(isa)))
        return self._started[isa].run(job, *arguments, advance=advance)


@contextlib.contextmanager
def start_workers() -> Iterator[Workers]:
    """Yield workers that end with the block."""
    with contextlib.ExitStack() as stack:
        yield Workers(stack)
