"""Every command of docs/board.md can be said as it stands there."""

import re
import shlex
from pathlib import Path

import pytest

from board_setup.cli import build_parser

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "board.md").read_text()
COMMANDS = [
    line.strip() for line in TEXT.splitlines() if re.match(r" {4}(sudo )?(setup-board|python3 \S*setup-board)", line)
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_documentation_is_understood(command: str) -> None:
    arguments = re.sub(r"^(sudo )?(setup-board|python3 \S*setup-board\.pyz) ", "", command)
    build_parser().parse_args(shlex.split(arguments))


def test_the_documentation_has_commands() -> None:
    assert len(COMMANDS) >= 12
