"""Ctrl-C and halts of a rollout: what boards behind a stand-in for ssh are asked to do."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.kits import make_kit
from helpers.waiting import until

from board_setup.board.kit import TOOL
from board_setup.workstation.fleet.progress import FAILED, INSTALLED, ROLLED_BACK, WAITING

pytestmark = pytest.mark.skipif(shutil.which("rsync") is None, reason="needs rsync")

SSH = """#!/bin/sh
# What a test wants of a board is in a file that is named after the command and the board.
here=$(dirname "$0")
until [ "${1#door-}" != "$1" ]; do shift; done
board=$1; shift
case "$*" in
    *"rsync --server"*) stage=copy ;;
    *"status --json"*) stage=status ;;
    *"install --kit"*) stage=install ;;
    *"rollback --from"*) stage=rollback ;;
    *) exit 0 ;;
esac
echo "$stage $board" >> "$here/asked"
[ ! -e "$here/$stage-$board" ] || . "$here/$stage-$board"
case $stage in
    copy) mkdir -p "$here/$board/deepfake-edge-incoming"; cd "$here/$board"; exec sh -c "$*" ;;
    status) echo '{"version": "1-aa", "restarts": 0, "camera": false, "verdicts": {}}' ;;
    rollback) echo "returned to 1-aa" ;;
esac
"""


class Rig:
    """Boards of one wave, door-000 and door-001, which get version 2-aa one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "ssh").write_text(SSH)
        (folder / "ssh").chmod(0o755)
        (folder / TOOL).touch()
        make_kit(folder / "kit.tar", "2")
        self.process: subprocess.Popen[str] | None = None
        names = "door-000 = 'door-000'\ndoor-001 = 'door-001'\n"
        (folder / "hosts.toml").write_text(f"ssh = '{folder}/ssh'\n[boards]\n{names}")

    def start(self) -> "subprocess.Popen[str]":
        """Start the rollout as a terminal does: Ctrl-C goes to all its processes."""
        tool = [sys.executable, "-m", "board_setup.cli", "fleet", "deploy", "--parallel", "1", "--waves", "100%"]
        files = ["--inventory", self.folder / "hosts.toml", "--kit", self.folder / "kit.tar"]
        self.process = subprocess.Popen(
            [*tool, *files], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        return self.process

    def deploy(self) -> tuple[int, list[str]]:
        """Run the rollout; return its exit code and what it says."""
        process = self.start()
        out, _ = process.communicate(timeout=60)
        return process.returncode, out.splitlines()

    def close(self) -> None:
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def asked(self) -> list[str]:
        path = self.folder / "asked"
        return path.read_text().splitlines() if path.exists() else []

    def boards(self) -> dict[str, dict]:
        """Return what the record says of the boards."""
        return json.loads((self.folder / "hosts-2-aa.json").read_text())["boards"]


@pytest.fixture
def rig(tmp_path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("stage", "does", "reason"),
    [
        ("copy", "exec sleep 60", "stopped before its installation: unchanged"),
        ("status", "exec sleep 60", "stopped before its installation: unchanged"),
        ("install", "exec sleep 60", "stopped during its installation"),
        # Another installation keeps the board busy, so this one is tried again and again.
        ("install", "exit 75", "stopped during its installation"),
    ],
)
def test_ctrl_c_begins_nothing_further_and_the_record_says_so(rig, stage, does, reason) -> None:
    (rig.folder / f"{stage}-door-000").write_text(does)
    process = rig.start()
    until(lambda: f"{stage} door-000" in rig.asked(), 60)
    os.killpg(process.pid, signal.SIGINT)
    out, told = process.communicate(timeout=30)
    assert (process.returncode, told) == (130, "stopped; run the same command again to continue\n"), out
    steps = ["copy", "status", "install"]
    assert rig.asked() == [f"{step} door-000" for step in steps[: steps.index(stage) + 1]]
    board, other = rig.boards().values()
    assert (board["state"], board["reason"]) == (WAITING, reason)
    assert (other["state"], other["reason"]) == (WAITING, "stopped before its installation: unchanged")
    # A health that was never told would hide what changes.
    assert board["before"].get("version") == ("1-aa" if stage == "install" else None)


def test_board_that_failed_is_rolled_back_too(rig) -> None:
    """It may have failed after the switch, as on a disk that is full."""
    (rig.folder / "install-door-001").write_text("echo 'error: signature: No space left on device' >&2; exit 2")
    code, said = rig.deploy()
    assert (code, said[-1]) == (1, "2 boards are back at their former version")
    assert rig.asked()[-2:] == ["rollback door-000", "rollback door-001"]
    board = rig.boards()["door-001"]
    assert (board["state"], board["reason"]) == (ROLLED_BACK, "signature: No space left on device; returned to 1-aa")


def test_failed_board_that_can_not_be_rolled_back_is_named(rig) -> None:
    (rig.folder / "install-door-000").write_text("echo 'error: signature: No space left on device' >&2; exit 2")
    (rig.folder / "rollback-door-000").write_text("echo 'error: it does not run' >&2; exit 2")
    code, said = rig.deploy()
    assert code == 1
    assert "door-000: not rolled back (it does not run); run the same command again" in said
    assert rig.boards()["door-000"]["state"] == FAILED


def test_board_without_a_former_version_gets_advice_that_helps(rig) -> None:
    (rig.folder / "status-door-000").write_text("echo 'no such file' >&2; exit 2")
    (rig.folder / "install-door-001").write_text("exit 2")
    (rig.folder / "rollback-door-000").write_text("echo 'error: there is no earlier good version' >&2; exit 2")
    _, said = rig.deploy()
    (line,) = (line for line in said if line.startswith("door-000: not rolled back"))
    assert "setup-board install --undo" in line
    assert "run the same command again" not in line
    assert (rig.boards()["door-000"]["state"], rig.boards()["door-001"]["state"]) == (INSTALLED, ROLLED_BACK)


def test_board_that_had_the_version_before_keeps_it(rig) -> None:
    (rig.folder / "status-door-000").write_text(
        """echo '{"version": "2-aa", "restarts": 0, "camera": false, "verdicts": {}}'; exit"""
    )
    (rig.folder / "install-door-001").write_text("exit 2")
    _, said = rig.deploy()
    assert [line for line in rig.asked() if "rollback" in line] == ["rollback door-001"]
    assert "door-000: not rolled back: it ran 2-aa before this rollout too" in said
