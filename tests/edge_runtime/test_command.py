"""How every command starts and ends: one-line errors, exit codes, help, version."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
from typing import Annotated
import typer
from edge_runtime.command import run_command
from edge_runtime.errors import BundleError, GateError

def probe(kind: Annotated[str, typer.Argument(help="What happens.")] = "nothing") -> int:
    "Do what KIND says."
    if kind == "user":
        raise BundleError("detector: no bundle; make one")
    if kind == "gate":
        raise GateError("INT8 lost 0.1; take FP16")
    if kind == "stop":
        raise KeyboardInterrupt
    if kind == "fault":
        raise RuntimeError("a fault of the program")
    if kind == "pipe":
        raise BrokenPipeError
    return 1 if kind == "some" else 0

run_command(probe, "probe")
"""


@pytest.fixture
def run(tmp_path: Path):
    script = tmp_path / "probe.py"
    script.write_text(PROGRAM)

    def start(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, check=False)

    return start


@pytest.mark.parametrize(("kind", "code"), [("nothing", 0), ("some", 1), ("user", 2), ("gate", 1), ("stop", 130)])
def test_the_exit_code_says_how_it_ended(run, kind: str, code: int) -> None:
    assert run(kind).returncode == code


def test_a_mistake_of_the_users_is_one_line(run) -> None:
    assert run("user").stderr == "error: detector: no bundle; make one\n"


def test_debug_shows_where_it_came_from(run) -> None:
    shown = run("user", "--debug")
    assert "Traceback" in shown.stderr
    assert shown.returncode == 2


def test_a_fault_of_the_program_is_not_hidden(run) -> None:
    fault = run("fault")
    assert "RuntimeError: a fault of the program" in fault.stderr
    assert fault.returncode == 1


def test_a_reader_that_went_away_is_no_error(run) -> None:
    gone = run("pipe")
    assert (gone.returncode, gone.stderr) == (0, "")


def test_wrong_use_ends_with_two_and_names_the_option(run) -> None:
    wrong = run("--nonsense")
    assert wrong.returncode == 2
    assert "--nonsense" in wrong.stderr


def test_help_and_version_answer(run) -> None:
    assert "Do what KIND says." in run("--help").stdout
    assert run("--version").stdout.startswith("probe 0.")
