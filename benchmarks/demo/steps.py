"""Steps that leave files behind: each is a command, and is skipped where what it made is still there unchanged."""

import hashlib
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_runtime.command import INTERRUPTED
from edge_runtime.errors import EdgeError

JOURNAL = "steps.json"


class StepError(EdgeError):
    """A step of the demo could not be done; it has said why."""


@dataclass(frozen=True)
class Step:
    """One command of the demo.

    Attributes:
        title: what it does.
        command: the command with its arguments; the first is a console script of this project, or `python`.
        made: files and folders that it leaves behind.
        if_short: what is said where it ends with exit code 1, finished but for something, and the demo goes on.
        again: whether it runs every time, since what it shows on the terminal is the point.
    """

    title: str
    command: tuple[str, ...]
    made: tuple[Path, ...] = ()
    if_short: str = "finished, but not everything went well: see above"
    again: bool = False


@dataclass(frozen=True)
class Done:
    """How a step ended: `skipped`, `done` or `short`, and in how many seconds."""

    title: str
    state: str
    seconds: float


class Journal:
    """What was done in a folder, so that a second run skips it.

    A step is skipped where it is asked for with the same command, everything it made is unchanged, and all steps before
    it were skipped too.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / JOURNAL
        self.records: dict[str, dict[str, str]] = self._read()
        self.fresh = False

    def is_done(self, step: Step) -> bool:
        """Return whether `step` need not run."""
        record = self.records.get(step.title)
        same = record is not None and not step.again and record == _record(step)
        self.fresh = self.fresh or not (same or step.again)
        return same and not self.fresh

    def write(self, step: Step) -> None:
        """Note that `step` is done."""
        self.records[step.title] = _record(step)
        write_whole(self.path, self.records)

    def _read(self) -> dict[str, dict[str, str]]:
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def write_whole(path: Path, values: Mapping[str, Any]) -> None:
    """Write `values` as JSON, whole or not at all."""
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)


def _record(step: Step) -> dict[str, str]:
    return {"command": shlex.join(step.command), **{str(path): fingerprint(path) for path in step.made}}


def fingerprint(path: Path) -> str:
    """Return SHA-256 over a file, or over the names and lengths of all files in a folder; empty for what is missing."""
    digest = hashlib.sha256()
    if path.is_file():
        digest.update(path.read_bytes())
    elif path.is_dir():
        for file in sorted(file for file in path.rglob("*") if file.is_file()):
            digest.update(f"{file.relative_to(path)} {file.stat().st_size}\n".encode())
    else:
        return ""
    return digest.hexdigest()


def run_steps(steps: Sequence[Step], folder: Path) -> list[Done]:
    """Run `steps` in order, showing each command and what it prints, and return how each ended.

    Raises:
        StepError: one could not be done.
        KeyboardInterrupt: one was stopped.
    """
    folder.mkdir(parents=True, exist_ok=True)
    journal = Journal(folder)
    ended = []
    for number, step in enumerate(steps, 1):
        print(f"\n[{number}/{len(steps)}] {step.title}", flush=True)
        if journal.is_done(step):
            print(f"    is there already: {', '.join(map(str, step.made))}", flush=True)
            ended.append(Done(step.title, "skipped", 0.0))
            continue
        done = _run(step)
        journal.write(step)
        ended.append(done)
    return ended


def _run(step: Step) -> Done:
    print(f"    {shlex.join(step.command)}", flush=True)
    started = time.monotonic()
    code = subprocess.run(_executable(step.command), env=_environment(), check=False).returncode
    seconds = time.monotonic() - started
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    missing = [str(path) for path in step.made if not path.exists()]
    if code not in (0, 1) or missing:
        why = f"ended with exit code {code}" + (f" and left no {missing[0]}" if missing else "")
        raise StepError(f"{step.command[0]} {why}; mend what it says above and run the demo again: it goes on here")
    if code == 1:
        print(f"    {step.if_short}", flush=True)
    print(f"    {seconds:.0f} s", flush=True)
    return Done(step.title, "short" if code else "done", seconds)


def _executable(command: Sequence[str]) -> list[str]:
    """Return the command with its program as it lies beside this Python."""
    if command[0] == "python":
        return [sys.executable, *command[1:]]
    return [str(Path(sys.executable).with_name(command[0])), *command[1:]]


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONUNBUFFERED": "1"}
