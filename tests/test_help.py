"""Every command's --help at 80 columns."""

import importlib

import pytest
import typer.testing
from test_documents import PROGRAMS

from edge_runtime.command import command_app


@pytest.fixture(params=sorted(PROGRAMS))
def help_text(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "80")
    module, _, function = PROGRAMS[request.param].partition(":")
    app = command_app(getattr(importlib.import_module(module), function))
    shown = typer.testing.CliRunner().invoke(app, ["--help"], prog_name=request.param)
    assert shown.exit_code == 0
    return shown.output


def test_help_is_not_cut_off(help_text: str) -> None:
    assert max(map(len, help_text.splitlines())) <= 80
    assert "…" not in help_text


def test_usage_has_one_ellipsis(help_text: str) -> None:
    usage = help_text.split("Usage: ")[1].splitlines()[0]
    assert usage.count("...") == help_text.split("─ Options")[0].count("<list[")


def test_examples_have_one_form(help_text: str) -> None:
    about = help_text.split("╭─")[0]
    assert "Examples:" in about
    assert "  • " in about
