"""Deploying: what is refused before the board is asked."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from helpers.kits import make_kit
from helpers.waiting import until

from board_setup import cli
from board_setup.workstation import deploy
from board_setup.workstation.deploy import Board, DeployError


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


@pytest.mark.parametrize(("prefix", "shared"), [("ab", True), ("a b", False), ("a%h", False), ("a~$", False)])
def test_connection_is_not_shared_where_ssh_would_read_its_path_otherwise(monkeypatch, prefix, shared) -> None:
    with tempfile.TemporaryDirectory(prefix=prefix) as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        with deploy.sharing_connections({"door": Board("door")}) as boards:
            assert ("ControlPath" in boards["door"].options) is shared


def write_ssh(folder: Path, script: str) -> str:
    """Write a stand-in for ssh."""
    path = folder / "ssh"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_kept_connection_that_holds_the_error_output_delays_nothing(tmp_path) -> None:
    """Before OpenSSH 8.5 the process that keeps a shared connection open keeps its stderr too."""
    ssh = write_ssh(tmp_path, "sleep 10 < /dev/null > /dev/null &\necho $! >> $0.pids; echo told >&2; exit 2")
    board, began = Board("door", ssh, str(tmp_path)), time.monotonic()
    try:
        assert not board.succeeds("true")
        assert board.ask("status").stderr == "told\n"
        with pytest.raises(DeployError, match="rsync ended with"):
            board.copy(__file__)
        assert time.monotonic() - began < 9
    finally:
        for pid in (tmp_path / "ssh.pids").read_text().split():
            os.kill(int(pid), signal.SIGKILL)


def test_interrupted_rollback_of_a_board_does_not_advise_another(tmp_path) -> None:
    ssh = write_ssh(tmp_path, "touch $0.asked; exec sleep 60")
    command = [sys.executable, "-m", "board_setup.cli", "rollback", "door", "--ssh", ssh]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        until((tmp_path / "ssh.asked").exists, 60)
        os.killpg(process.pid, signal.SIGINT)
        _, told = process.communicate(timeout=30)
    assert (process.returncode, told) == (130, "stopped; look whether it returned already: setup-board status door\n")


@pytest.mark.skipif(shutil.which("rsync") is None, reason="needs rsync")
@pytest.mark.parametrize(
    "quoted", [r"my\ keys/fleet", "'my keys/fleet'", '"it\'s mine"', r"'say \"yes\"'", "''", r"back\\slash"]
)
def test_rsync_gets_the_words_that_ssh_gets(tmp_path, quoted) -> None:
    script = 'for word in "$@"; do printf "[%s]\\n" "$word"; done >> $0.words; echo >> $0.words; exit 1'
    board = Board("door", f"{write_ssh(tmp_path, script)} -i {quoted} -p 22")
    assert not board.succeeds("true")
    with pytest.raises(DeployError, match="rsync ended with"):
        board.copy(__file__)
    by_ssh, by_rsync = (words.split("\n") for words in (tmp_path / "ssh.words").read_text().split("\n\n")[:2])
    assert by_rsync[:4] == by_ssh[:4]
    assert by_ssh[2:4] == ["[-p]", "[22]"]


@pytest.mark.skipif(shutil.which("rsync") is None, reason="needs rsync")
@pytest.mark.parametrize(
    ("there", "told"),
    [
        ('while [ "$1" != rsync ]; do shift; done; exec "$@"', "(rsync: "),
        ("echo 'bash: line 1: rsync: command not found' >&2; exit 127", "(bash: line 1: rsync: command not found)"),
        (
            "echo 'ssh: connect to host door port 22: refused' >&2; exit 1",
            "(ssh: connect to host door port 22: refused)",
        ),
    ],
)
def test_failed_copy_tells_its_reason_and_not_the_banner(tmp_path, there, told) -> None:
    (tmp_path / "root").write_text("not a folder")
    board = Board("door", write_ssh(tmp_path, f"echo 'Welcome to door 3' >&2; {there}"), str(tmp_path / "root"))
    with pytest.raises(DeployError) as caught:
        board.copy(__file__)
    assert told in str(caught.value)
