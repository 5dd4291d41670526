"""How every command starts and ends: one-line errors, exit codes, help, version."""

import sys
from typing import Annotated

import pytest
import typer

from edge_runtime.command import run_command
from edge_runtime.errors import BundleError, GateError

RAISED = {
    "user": BundleError("detector: no bundle; make one"),
    "gate": GateError("INT8 lost 0.1; take FP16"),
    "stop": KeyboardInterrupt(),
    "fault": RuntimeError("a fault of the program"),
}


def probe(kind: Annotated[str, typer.Argument(help="What happens.")] = "nothing") -> int:
    """Do what KIND says."""
    if kind in RAISED:
        raise RAISED[kind]
    return 1 if kind == "some" else 0


@pytest.fixture
def run(monkeypatch, capfd):
    def start(*arguments):
        monkeypatch.setattr(sys, "argv", ["probe", *arguments])
        with pytest.raises(SystemExit) as ended:
            run_command(probe, "probe")
        return (ended.value.code or 0, *capfd.readouterr())

    return start


def test_exit_codes_and_one_line_errors(run):
    assert [run(kind)[0] for kind in ("nothing", "some", "gate", "stop")] == [0, 1, 1, 130]
    assert run("user") == (2, "", "error: detector: no bundle; make one\n")
    code, _, errors = run("user", "--debug")
    assert (code, "Traceback" in errors) == (2, True)


def test_a_bug_is_not_hidden(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["probe", "fault"])
    with pytest.raises(RuntimeError, match="a fault of the program"):
        run_command(probe, "probe")


def test_unknown_options_end_with_2(run):
    code, _, errors = run("--nonsense")
    assert code == 2
    assert "--nonsense" in errors


def test_help_and_version(run):
    assert "Do what KIND says." in run("--help")[1]
    assert run("--version")[1].startswith("probe 0.")
