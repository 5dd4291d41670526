"""The runtime's virtual environment on the board: made from a folder of wheels, verified, and asked to check itself."""

import base64
import csv
import enum
import glob
import json
import os
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

from board_setup.board import commands, disk

IMPORT_ALL = """
import contextlib, importlib, pkgutil
import edge_runtime
for module in pkgutil.walk_packages(edge_runtime.__path__, "edge_runtime.", onerror=lambda name: None):
    with contextlib.suppress(Exception):
        importlib.import_module(module.name)
"""

RECORDS = "lib/python*/site-packages/*.dist-info/RECORD"

NOT_INSTALLED_CODE = 69
"""EX_UNAVAILABLE of sysexits.h."""

CHECK_TIMEOUT_S = 900.0
"""A check that takes longer hangs; a board needs seconds, an emulated one on a busy machine minutes."""

SELF_CHECK = f"""
import importlib.util, runpy, sys
if importlib.util.find_spec("edge_runtime") is None:
    sys.exit({NOT_INSTALLED_CODE})
runpy.run_module("edge_runtime.model.check", run_name="__main__", alter_sys=True)
"""


def make(python: str, target: str, wheels: str, requirement: str) -> None:
    """Make a virtual environment with `requirement` from a folder of wheels, without a network.

    Only the modules that the runtime imports are compiled, by importing them: a quarter of all modules installed.
    """
    pip = next(name for name in sorted(os.listdir(wheels)) if name.startswith("pip-"))
    commands.run([python, "-m", "venv", "--without-pip", target])
    own = os.path.join(target, "bin", "python")
    options = ["--no-index", "--find-links", wheels, "--no-cache-dir", "--no-compile", "--disable-pip-version-check"]
    commands.run([own, os.path.join(wheels, pip, "pip"), "install", "--quiet", *options, requirement])
    commands.call([own, "-I", "-c", IMPORT_ALL])


def mark_complete(folder: str) -> None:
    """Mark an environment as complete, after it has reached the disk, with the list of its distributions."""
    os.sync()
    records = glob.glob(os.path.join(glob.escape(folder), RECORDS))
    disk.write(os.path.join(folder, disk.COMPLETE), "\n".join(os.path.relpath(path, folder) for path in records))


def is_intact(folder: str) -> bool:
    """Return whether an environment was completed and every file that pip installed still has its SHA-256 (PEP 376)."""
    complete = os.path.join(folder, disk.COMPLETE)
    if not (os.path.exists(complete) and os.path.exists(os.path.join(folder, "bin", "python"))):
        return False
    for record in filter(None, disk.read_text(complete).split("\n")):
        packages = os.path.dirname(os.path.dirname(os.path.join(folder, record)))
        try:
            with open(os.path.join(folder, record), encoding="utf-8", newline="") as file:
                # Compiled modules, and RECORD itself, have no digest.
                rows = [(name, *digest.split("=", 1)) for name, digest, _ in csv.reader(file) if "=" in digest]
            digests = {name: base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).hex() for name, _, text in rows}
        except (OSError, ValueError, csv.Error):
            return False
        if not digests or not all(disk.has_sha256(os.path.join(packages, name), digests[name]) for name in digests):
            return False
    return True


class CheckState(enum.Enum):
    """How the runtime's check of itself, its bundle and its answers ended."""

    PASSED = "passed"
    FAILED = "failed"
    NO_BUNDLE = "no bundle"
    NOT_INSTALLED = "not installed"
    ILLEGAL_INSTRUCTION = "illegal instruction"


class Check(NamedTuple):
    """The result of the runtime's check.

    Attributes:
        state: how it ended.
        reason: why it failed, in one line, empty if it passed.
        found: the check's JSON answer, empty if it printed none.
    """

    state: CheckState
    reason: str
    found: Dict[str, Any]


def check_command(python: str, model: Optional[str] = None) -> List[str]:
    """Return the command that lets the runtime check itself."""
    # -I: modules in the working folder are not imported. -B: nothing is written.
    return [python, "-I", "-B", "-c", SELF_CHECK] + (["--model", model] if model else [])


def run_check(python: str, model: str, *options: str, before: Sequence[str] = ()) -> Check:
    """Let the runtime of `python` check itself and a bundle, by a command that begins with `before`."""
    command = [*before, *check_command(python, model), *options]
    done = commands.call(command, timeout_s=CHECK_TIMEOUT_S)
    return read_check(commands.exit_code(done.returncode), done.stdout.decode(errors="replace"))


def read_check(code: int, out: str) -> Check:
    """Return what the check's exit code and output say."""
    if code == commands.TIMED_OUT:
        waited = f"no answer from the runtime within {CHECK_TIMEOUT_S / 60:.0f} minutes"
        return Check(CheckState.FAILED, f"{waited}: a driver or the disk hangs; see: sudo dmesg | tail", {})
    if code == NOT_INSTALLED_CODE:
        return Check(CheckState.NOT_INSTALLED, "the runtime is not installed", {})
    if code == commands.ILLEGAL_INSTRUCTION:
        reason = "it used an instruction that this CPU lacks (SIGILL, 132): a wheel was built for AVX"
        return Check(CheckState.ILLEGAL_INSTRUCTION, reason, {})
    try:
        found = json.loads(out[out.index("{") :])
    except ValueError:
        return Check(CheckState.FAILED, (out.strip().splitlines() or [f"exit code {code}"])[-1], {})
    if not found.get("error") and not code:
        return Check(CheckState.PASSED, "", found)
    state = CheckState.NO_BUNDLE if found.get("state") == CheckState.NO_BUNDLE.value else CheckState.FAILED
    return Check(state, found.get("error") or f"exit code {code}", found)
