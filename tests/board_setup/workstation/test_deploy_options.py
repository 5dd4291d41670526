"""Deploying: what is refused before the board is asked."""

import pytest
from helpers.kits import make_kit

from board_setup import cli
from board_setup.workstation import deploy


@pytest.mark.parametrize(
    "host", ["-oProxyCommand=touch x", "edge@-oProxyCommand=x", "a b", "", "board;ls", "$(ls)", "edge@", "x\n", "a/b"]
)
@pytest.mark.parametrize("name", ["deploy", "versions", "rollback", "status"])
def test_host_is_no_option(tmp_path, monkeypatch, capsys, name, host) -> None:
    monkeypatch.chdir(tmp_path)
    kit = ["--kit", str(make_kit(tmp_path / "kit.tar", "1"))] if name == "deploy" else []
    monkeypatch.setattr(deploy.subprocess, "call", lambda command: pytest.fail(f"ran {command}"))
    with pytest.raises(SystemExit) as ended:
        cli.main([name, "--ssh", "ssh", *kit, "--", host])
    assert (ended.value.code, capsys.readouterr().err.count("\n")) == (2, 1)


@pytest.mark.parametrize("ssh", ["", "ssh 'x", "/none/ssh"])
def test_wrong_ssh_command_is_one_line(capsys, ssh) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["status", "board", "--ssh", ssh])
    assert (ended.value.code, capsys.readouterr().err.count("\n")) == (2, 1)


@pytest.mark.parametrize("host", ["board", "edge@board.local", "edge@192.0.2.1", "edge@[fe80::1%eth0]", "my_board-2"])
def test_host_names_and_addresses_are_accepted(host) -> None:
    assert deploy.check_host(host) == host


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
