"""A power cut in each step of an installation, after which the same command completes it. Takes hours."""

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from board_setup.workstation.virtual_board import VirtualBoard

TOOL = "python3 /mnt/host/setup-board.pyz"
STEPS = ("kit", "driver", "runtime", "detector", "check", "groups", "camera", "journal", "unit", "command", "switch")
STEPS += ("service",)
PATIENCE_S = 600.0
REACHED_S = 1800.0
"""Time until the last step begins, on a busy workstation."""


@pytest.fixture(scope="module")
def other_board(share: Path) -> Iterator[VirtualBoard]:
    """Another board, with a user."""
    if not os.environ.get("DEEPFAKE_EDGE_SOAK"):
        pytest.skip("needs a virtual board for hours: make soak")
    with tempfile.TemporaryDirectory(prefix="virtual-board-") as folder, VirtualBoard(folder, str(share)) as machine:
        machine.power_on()
        machine.run("useradd -m edge")
        yield machine


@pytest.mark.parametrize("step", STEPS)
def test_install_continues_after_a_cut_in_each_step(other_board: VirtualBoard, step: str) -> None:
    install = f"{TOOL} install --kit /mnt/host/kit.tar --user edge"
    # An installation that an earlier test left running would hold the lock.
    other_board.run("pkill -f [s]etup-board.pyz", check=False)
    other_board.run(f"{TOOL} install --undo", timeout_s=PATIENCE_S)
    other_board.run(f"{install} > /var/tmp/install.log 2>&1 &")
    ends = time.monotonic() + REACHED_S
    while f"{step} …" not in other_board.run("cat /var/tmp/install.log").out:
        assert time.monotonic() < ends, f"{step} was not reached"
        time.sleep(0.2)
    other_board.power_cut()
    other_board.power_on()
    said = other_board.run(install, timeout_s=1800.0).out
    assert "is installed\n" in said
    checked = other_board.run(f"{TOOL} doctor", check=False, timeout_s=PATIENCE_S)
    assert "0 at fault" in checked.out
