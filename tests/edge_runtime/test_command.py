"""How every command starts and ends: one-line errors, exit codes, help, version."""

import sys
from enum import Enum
from pathlib import Path
from typing import Annotated, Literal

import pytest
import typer
from typer.testing import CliRunner

from edge_runtime.command import Needs, command_app, run_command
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


class Preset(Enum):
    QUICK = "quick"
    LONG = "long-run"


def options(
    places: Annotated[list[Path], typer.Argument(help="Folders.")],
    port: Annotated[int, typer.Option("--port", "-p", min=0, max=65535, help="A port.")] = 8000,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs.")] = None,
    share: Annotated[float, typer.Option(max=0.5, help="A share.")] = 0.1,
    batch: Annotated[list[int] | None, typer.Option(help="Batches.")] = None,
    preset: Annotated[Preset, typer.Option(help="The recipe.")] = Preset.QUICK,
    device: Annotated[Literal["CPU", "GPU"], typer.Option(help="The device.")] = "CPU",
    quiet: Annotated[bool, typer.Option("--quiet", help="Print less.")] = False,
    csv: Annotated[Path | None, typer.Option(help="A file.")] = None,
    rotate: Annotated[int, typer.Option(help="A size."), Needs(("csv", "quiet"), "a reason")] = 5,
) -> None:
    """Take options."""


def keygen(file: Annotated[Path, typer.Argument(help="A file.")]) -> None:
    """Take a file."""


WRONG = {
    ("x", "--port", "80x"): "--port 80x: not a whole number",
    ("x", "--port=-1"): "--port -1: give 0 to 65535",
    ("x", "-p", "65536"): "--port 65536: give 0 to 65535",
    ("x", "--epochs", "0"): "--epochs 0: give at least 1",
    ("x", "--epochs", "1.5"): "--epochs 1.5: not a whole number",
    ("x", "--share", "0.6"): "--share 0.6: give at most 0.5",
    ("x", "--share", "nan"): "--share nan: give at most 0.5",
    ("x", "--share", ""): "--share : not a number",
    ("x", "--share", "half\nthe faces"): "--share half the faces: not a number",
    ("x", "--batch", "8", "--batch", "many"): "--batch many: not a whole number",
    ("x", "--preset", "quik"): "--preset quik: choose one of quick, long-run",
    ("x", "--device", "NPU"): "--device NPU: choose one of CPU, GPU",
    ("x", "--rotate", "5"): "--rotate needs --csv or --quiet, a reason",
    ("x", "--quiet=3"): "option '--quiet' does not take a value; see `probe --help`",
    ("x", "--port"): "option '--port' requires an argument; see `probe --help`",
    ("x", "--nonsense"): "no such option: --nonsense; see `probe --help`",
    (): "missing argument 'places'; see `probe --help`",
}


@pytest.mark.parametrize("words", WRONG)
def test_usage_errors_are_one_line(words):
    done = CliRunner().invoke(command_app(options), words, prog_name="probe")
    assert (done.exit_code, done.stderr, done.stdout) == (2, f"error: {WRONG[words]}\n", "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--kind", "x", "nonsense"], "no such option: --kind"),
        (["nonsense"], "no such command 'nonsense'"),
        (["keygen"], "missing argument 'file'; see `probe keygen --help`"),
        (["keygen", "a", "b"], "got unexpected extra argument(s) (b); see `probe keygen --help`"),
    ],
)
def test_usage_errors_of_subcommands_are_one_line(words, said):
    done = CliRunner().invoke(command_app(lambda: None, [keygen]), words, prog_name="probe")
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {said}")


@pytest.mark.parametrize("words", [[], ["--rotate", "5", "--csv", "out.csv"], ["--rotate", "5", "--quiet"]])
def test_an_option_is_taken_with_what_it_needs(words):
    assert CliRunner().invoke(command_app(options), ["x", *words]).exit_code == 0


def test_a_half_typed_line_is_completed(capsys):
    words = ["x", "--port", "80x", "--rotate", "5", "--pre"]
    context = typer.main.get_command(command_app(options)).make_context("probe", words, resilient_parsing=True)
    assert context.params["rotate"] == 5
    assert capsys.readouterr().err == ""


def test_help_and_version(run):
    assert "Do what KIND says." in run("--help")[1]
    assert run("--version")[1].startswith("probe 0.")
