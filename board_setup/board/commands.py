"""Running the commands of the system."""

import json
import os
import re
import subprocess
from typing import Sequence

from board_setup.errors import BoardError


class CommandError(BoardError):
    """A command of the system failed."""


def call(command: Sequence[str]) -> "subprocess.CompletedProcess[bytes]":
    """Run a command from the root folder, its standard error with its output."""
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
        CommandError: it failed.
    """
    done = call(command)
    if done.returncode:
        raise CommandError(f"{os.path.basename(command[0])} ended with {done.returncode}: {reason(done)}")


def succeeds(command: Sequence[str]) -> bool:
    """Say whether a command ends with 0."""
    return call(command).returncode == 0


def output(command: Sequence[str]) -> str:
    """Return what a command says, however it ends."""
    return call(command).stdout.decode(errors="replace").strip()


def reason(done: "subprocess.CompletedProcess[bytes]") -> str:
    """Return in one line why a command failed; the runtime's own check is read for its error."""
    text = done.stdout.decode(errors="replace").strip()
    found = re.search(r'"error": "(.*)"', text)
    if found:
        return json.loads(f'"{found.group(1)}"')
    if done.returncode in (-4, 132):
        return "it used an instruction that this CPU does not have (SIGILL)"
    return text.splitlines()[-1] if text else f"exit code {done.returncode}"
