"""Runs the demo's commands one after the other and skips those whose results are still there, unchanged."""

import contextlib
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from edge_runtime.atomic import write_atomic
from edge_runtime.command import INTERRUPTED
from edge_runtime.errors import EdgeError

JOURNAL = "steps.json"

REASONS = ("error: ", "audit: ", "failed: ", "left out: ", "warning: ")
"""Prefixes of the lines on standard error that say what went wrong, the most serious first."""

TERMINAL_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class StepError(EdgeError):
    """A step failed."""


@dataclass(frozen=True)
class DemoStep:
    """One command of the demo.

    Attributes:
        command: one of this project's console scripts, or `python`, with its arguments.
        made: the files and folders that it makes.
        if_partial: explanation for exit code 1: the command finished, but not everything went well, and the demo
            continues.
        again: run it every time, because its output on the terminal is the point.
    """

    title: str
    command: tuple[str, ...]
    made: tuple[Path, ...] = ()
    if_partial: str = "finished, but not everything went well"
    again: bool = False


class StepState(str, Enum):
    """How a step ended; PARTIAL is exit code 1."""

    SKIPPED = "skipped"
    DONE = "done"
    PARTIAL = "partial"


@dataclass(frozen=True)
class StepResult:
    """How a step ended, in how many seconds, and what went wrong, if anything (also when it was skipped later)."""

    title: str
    state: StepState
    seconds: float
    problem: str = ""


class Journal:
    """Records what was done in a folder, so that the next run skips it.

    A step is skipped if its command is the same, everything it made is unchanged, and all steps before it were skipped.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / JOURNAL
        self.changed = False
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            self._records = {str(title): {str(k): str(v) for k, v in record.items()} for title, record in found.items()}
        except (OSError, ValueError, AttributeError, RecursionError):
            self._records = {}

    def command(self, title: str) -> str | None:
        """Return the command that a step was done with, None if it was not."""
        return self._records.get(title, {}).get("command")

    def problem(self, title: str) -> str:
        """Return what went wrong when a step was done."""
        return self._records.get(title, {}).get("problem", "")

    def is_done(self, step: DemoStep) -> bool:
        """Return whether to skip `step`."""
        record = dict(self._records.get(step.title, {}))
        record.pop("problem", None)
        same = not step.again and record == _record(step)
        self.changed = self.changed or not (same or step.again)
        return same and not self.changed

    def write(self, step: DemoStep, problem: str) -> None:
        """Record that `step` is done, and what went wrong."""
        self._records[step.title] = {**_record(step), "problem": problem}
        write_atomic(self.path, json.dumps(self._records, indent=1, ensure_ascii=False) + "\n")


def _record(step: DemoStep) -> dict[str, str]:
    return {"command": shlex.join(step.command), **{str(path): fingerprint(path) for path in step.made}}


def fingerprint(path: Path) -> str:
    """Return the SHA-256 of a file, or of the names and sizes of all files in a folder; empty if it is missing."""
    digest = hashlib.sha256()
    if path.is_file():
        digest.update(path.read_bytes())
    elif path.is_dir():
        for file in sorted(file for file in path.rglob("*") if file.is_file()):
            digest.update(f"{file.relative_to(path)} {file.stat().st_size}\n".encode())
    else:
        return ""
    return digest.hexdigest()


def run_steps(steps: Sequence[DemoStep], folder: Path) -> list[StepResult]:
    """Run `steps` in order, showing each command and its output, and return how each ended.

    Raises:
        StepError: a step failed.
        KeyboardInterrupt: a step was stopped.
    """
    folder.mkdir(parents=True, exist_ok=True)
    journal = Journal(folder)
    results = []
    for number, step in enumerate(steps, 1):
        print(f"\n[{number}/{len(steps)}] {step.title}", flush=True)
        if journal.is_done(step):
            print(f"    already done: {', '.join(map(str, step.made))}", flush=True)
            problem = journal.problem(step.title)
            results.append(StepResult(title=step.title, state=StepState.SKIPPED, seconds=0.0, problem=problem))
            continue
        print(f"    {shlex.join(step.command)}", flush=True)
        started = time.monotonic()
        code, reason = _run(step.command)
        seconds = time.monotonic() - started
        missing = [str(path) for path in step.made if not path.exists()]
        if code not in (0, 1) or missing:
            what = reason or f"exit code {code}" + (f", and {missing[0]} was not written" if missing else "")
            raise StepError(f"{step.command[0]} failed ({what}); fix that and run the demo again: it continues here")
        problem = f"{step.command[0]}: {reason or step.if_partial}" if code else ""
        if problem:
            print(f"    {step.if_partial}", flush=True)
        print(f"    {seconds:.0f} s", flush=True)
        journal.write(step, problem)
        state = StepState.PARTIAL if code else StepState.DONE
        results.append(StepResult(title=step.title, state=state, seconds=seconds, problem=problem))
    return results


def _run(command: Sequence[str]) -> tuple[int, str]:
    """Run a command; return its exit code and the line on its standard error that says best what went wrong.

    Standard error is passed on as it comes. A terminal is passed on as one, so that progress bars are shown.

    Raises:
        StepError: it could not be started.
        KeyboardInterrupt: it was stopped and has ended by itself.
    """
    program = Path(sys.executable) if command[0] == "python" else Path(sys.executable).with_name(command[0])
    ours, theirs = os.openpty() if sys.stderr.isatty() else os.pipe()
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    errors = b""
    try:
        process = subprocess.Popen([str(program), *command[1:]], stderr=theirs, env=environment)
    except OSError as error:
        os.close(ours)
        raise StepError(f"{program}: {error.strerror}; run make setup") from None
    finally:
        os.close(theirs)
    try:
        # A pseudo terminal whose other side is closed raises an error instead of giving no bytes.
        with contextlib.suppress(OSError):
            while chunk := os.read(ours, 65536):
                os.write(sys.stderr.fileno(), chunk)
                errors = (errors + chunk)[-100_000:]
        code = process.wait()
    except KeyboardInterrupt:
        # Ctrl-C reached the command too; training saves its state first.
        process.wait()
        raise
    finally:
        os.close(ours)
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    lines = TERMINAL_CODES.sub("", errors.decode(errors="replace")).splitlines()
    reasons = [line.strip() for kind in REASONS for line in reversed(lines) if line.strip().startswith(kind)]
    return code, reasons[0].removeprefix("error: ") if reasons else ""
