"""Work in child processes: an instruction set holds for a whole process, and NNCF's chatter stays off the terminal.

A child does one job after the other: importing NNCF takes longer than many a job.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from board_setup.isa import capped_environment
from edge_runtime.errors import UsageError
from train.parallel import Advance

ROOT = Path(__file__).resolve().parents[2]


class Workers:
    """Child processes by instruction set, each started when it is first needed and ended with the block."""

    def __init__(self) -> None:
        self._children: dict[str, _Child] = {}

    def __enter__(self) -> "Workers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in self._children.values():
            child.end()

    def run(self, kind: str, values: Mapping[str, Any], *, isa: str = "native", advance: Advance | None = None) -> None:
        """Run a job of `export.children.worker` in the child that is capped to `isa`, and wait for it.

        Args:
            kind: which job, a key of `export.children.worker.JOBS`.
            values: what it works on, as JSON can hold it; paths absolute.
            isa: a key of `board_setup.isa.CAPS`.
            advance: told how many more steps are done.

        Raises:
            UsageError: the job failed; the last line that it said is told.
        """
        if isa not in self._children:
            self._children[isa] = _Child(isa)
        self._children[isa].run({"kind": kind, **values}, advance)


class _Child:
    def __init__(self, isa: str) -> None:
        self.isa = isa
        self.folder = tempfile.TemporaryDirectory(prefix="deepfake-edge-worker-")
        self.said = Path(self.folder.name) / "said.txt"
        with self.said.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "export.children.worker"],
                # A folder of its own: python -m looks for modules in the working folder first.
                cwd=self.folder.name,
                env=_environment(isa),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                encoding="utf-8",
            )

    def run(self, job: Mapping[str, Any], advance: Advance | None) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(job) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise self._failure(job["kind"]) from None
        for line in self.process.stdout:
            if line == "done\n":
                return
            if line.startswith("+") and advance:
                advance(int(line[1:]))
        raise self._failure(job["kind"])

    def _failure(self, kind: str) -> UsageError:
        code = self.process.wait()
        text = self.said.read_text(encoding="utf-8", errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return UsageError(f"{kind} ({self.isa}) failed: {lines[-1] if lines else f'it ended with {code}'}")

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                # What a child that died did not read can't be flushed any more.
                with suppress(BrokenPipeError):
                    pipe.close()
        self.folder.cleanup()


def _environment(isa: str) -> dict[str, str]:
    environment = capped_environment(isa)
    path = environment.get("PYTHONPATH")
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *([path] if path else [])])
    return environment
