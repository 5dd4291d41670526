"""Running the system's commands."""

import os
import signal
import subprocess
from typing import Optional, Sequence

from board_setup.errors import BoardError

Finished = subprocess.CompletedProcess


class CommandError(BoardError):
    """A system command failed."""


TIMED_OUT = 124
"""The exit code of a command that took too long, as timeout(1) reports it."""


def call(command: Sequence[str], *, timeout_s: Optional[float] = None) -> "Finished[bytes]":
    """Run a command in the root folder, with its standard error joined to its output.

    One that takes longer than `timeout_s` is killed, and its exit code is TIMED_OUT.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "LC_ALL": "C"},
        cwd="/",
    )
    try:
        out, _ = process.communicate(timeout=timeout_s)
        return Finished(command, process.returncode, out)
    except subprocess.TimeoutExpired:
        return Finished(command, TIMED_OUT, b"")
    finally:
        # Not waited for: a process stuck in a kernel driver survives even this.
        process.kill()


def run(command: Sequence[str]) -> None:
    """Run a command.

    Raises:
        CommandError: it failed; the message holds the last line it printed.
    """
    done = call(command)
    if done.returncode:
        lines = done.stdout.decode(errors="replace").strip().splitlines()
        name = os.path.basename(command[0])
        raise CommandError(f"{name} ended with {exit_code(done.returncode)}: {lines[-1] if lines else 'no output'}")


def succeeds(command: Sequence[str]) -> bool:
    """Return whether a command ends with 0."""
    return call(command).returncode == 0


def output(command: Sequence[str]) -> str:
    """Return what a command prints, whatever its exit code."""
    return call(command).stdout.decode(errors="replace").strip()


def exit_code(code: int) -> int:
    """Return the exit code as a shell reports it: 128 + N after signal N."""
    return code if code >= 0 else 128 - code


ILLEGAL_INSTRUCTION = exit_code(-signal.SIGILL)
"""The exit code of a program that used an instruction its CPU lacks."""
