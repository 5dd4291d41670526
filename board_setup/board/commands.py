"""Running the system's commands."""

import os
import signal
import subprocess
from typing import Sequence

from board_setup.errors import BoardError

Finished = subprocess.CompletedProcess


class CommandError(BoardError):
    """A system command failed."""


def call(command: Sequence[str]) -> "Finished[bytes]":
    """Run a command in the root folder, with its standard error joined to its output."""
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "LC_ALL": "C"},
        cwd="/",
    )


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
