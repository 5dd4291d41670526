"""Deploying: what is refused before the board is asked."""

import pytest
from helpers.kits import make_kit

from board_setup import cli


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.tar", "none.tar: not found; make a kit with"),
        ("text", "text: not a kit, or cut off"),
        ("alone/kit.tar", "alone/setup-board.pyz: not found; setup-board pack writes it beside the kit"),
    ],
)
def test_wrong_kit_is_one_line(tmp_path, monkeypatch, capsys, name, message) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").write_text("text")
    (tmp_path / "alone").mkdir()
    make_kit(tmp_path / "alone" / "kit.tar", "1")
    with pytest.raises(SystemExit) as ended:
        cli.main(["deploy", "edge@board.invalid", "--kit", name])
    told = capsys.readouterr()
    assert (ended.value.code, told.out, told.err.count("\n")) == (2, "", 1)
    assert told.err.removeprefix(f"error: {tmp_path}/").removeprefix("error: ").startswith(message)
