"""Rollouts in waves over real ssh servers with signed kits; FLEET_BOARDS=200 runs them with as many boards."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.fleet import SSHD, Doors, Fleet, end_work_on
from helpers.kits import make_kit, tool

from board_setup.board.layout import SERVICE
from board_setup.workstation.sign import make_key, sign_kit

COUNT = int(os.environ.get("FLEET_BOARDS", "6"))

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def fleet(tmp_path_factory) -> Iterator[Fleet]:
    """Boards with version 1 that trust one key; later tests find what earlier ones installed."""
    if os.geteuid() or SSHD is None or shutil.which("rsync") is None or not Path("/usr/bin/python3").exists():
        pytest.skip("needs root, openssh-server, rsync and the distribution's Python")
    folder = tmp_path_factory.mktemp("fleet")
    make_key(str(folder / "key"), passphrase=False)
    trusted = folder / "first" / "etc" / "deepfake-edge" / "trusted"
    trusted.mkdir(parents=True)
    shutil.copy(folder / "key.pub", trusted)
    first = pack(folder, "1", 1)
    command = ["/usr/bin/python3", folder / "setup-board.pyz", "install", "--kit", first, "--root", folder / "first"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    made = Fleet(folder, COUNT)
    yield made
    made.close()


def pack(folder: Path, version: str, counter: int, **changes: str) -> Path:
    """Write a signed kit for the distribution's Python, and the tool beside it."""
    said = "import sys; print('%d.%d' % sys.version_info[:2])"
    python = subprocess.run(["/usr/bin/python3", "-c", said], capture_output=True, text=True).stdout.strip()
    kit = make_kit(folder / f"{version}.tar", version, python=python, **changes)
    (folder / "setup-board.pyz").write_bytes(tool())
    sign_kit(str(kit), str(folder / "key"), counter=counter)
    return kit


def deploy(fleet: Fleet, kit: Path, **options: object) -> subprocess.CompletedProcess:
    return fleet.fleet("deploy", **{"kit": kit, "watch_minutes": 0, "poll_seconds": 1, **options})


def test_version_that_disagrees_in_the_field_reaches_few_boards(fleet) -> None:
    """It passes its golden pictures, and calls six times as many faces fake as the version before."""
    kit, began = pack(fleet.folder, "2", 2), time.monotonic()
    with Doors(fleet, {"1-aa": 0.1, "2-aa": 0.6}) as doors:
        done = deploy(fleet, kit, watch_minutes=60)
        assert done.returncode == 1, done.stdout + done.stderr
        reached = doors.reached["2-aa"]
    print(f"{len(reached)} of {COUNT} boards ran the bad version; halted after {time.monotonic() - began:.0f} s")
    assert len(reached) <= max(1, 0.05 * COUNT)
    assert "halted: at least 50% of faces are judged otherwise than before (limit 10%): fake 30 of 300" in done.stdout
    assert set(fleet.versions().values()) == {"1-aa"}
    again = deploy(fleet, kit)
    assert (again.returncode, "halted: at least 50%" in again.stdout) == (1, True)


def test_version_that_fails_its_golden_pictures_is_switched_to_nowhere(fleet) -> None:
    done = deploy(fleet, pack(fleet.folder, "3", 3, golden="wrong"))
    assert done.returncode == 1
    assert "installing failed on 1 (limit 0): door-000: check: the new version fails on this board" in done.stdout
    assert set(fleet.versions().values()) == {"1-aa"}
    assert fleet.broken() == []


def test_unsigned_kit_is_installed_nowhere(fleet) -> None:
    kit = make_kit(fleet.folder / "unsigned.tar", "4")
    done = deploy(fleet, kit)
    assert (done.returncode, "unsigned; this board accepts only kits signed" in done.stdout) == (1, True)
    assert set(fleet.versions().values()) == {"1-aa"}


def test_restarts_halt_a_wave(fleet) -> None:
    root = Path(fleet.layouts["door-000"].root)
    (root / "dev").mkdir()
    (root / "dev" / "video0").touch()
    asked = f"systemctl show {SERVICE} --property=ActiveState --property=NRestarts --property=InvocationID"
    answer = "ActiveState=active\nNRestarts=4\nInvocationID=a"
    (root / "commands.json").write_text(json.dumps({asked: [0, answer]}))
    try:
        done = deploy(fleet, pack(fleet.folder, "5", 5), min_faces=0)
    finally:
        shutil.rmtree(root / "dev")
    assert (done.returncode, "halted: 4 restarts on door-000 (limit 3)" in done.stdout) == (1, True), done.stdout
    assert set(fleet.versions().values()) == {"1-aa"}


def test_drift_halts_a_wave(fleet) -> None:
    layout = fleet.layouts["door-000"]
    path = Path(layout.at("/var/lib/deepfake-edge-state/monitor/status.json"))
    path.parent.mkdir(parents=True)
    kit = pack(fleet.folder, "6", 6)
    command = fleet.command("deploy", kit=kit, watch_minutes=60, poll_seconds=0.5, min_faces=0)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while fleet.versions()["door-000"] != "6-aa":
            time.sleep(0.1)
        path.write_text(json.dumps({"state": "drift", "since": "today", "reason": "blurred faces"}))
        out, _ = process.communicate(timeout=60)
    path.unlink()
    assert process.returncode == 1
    assert "halted: drift on door-000 (limit 0): blurred faces" in out
    assert set(fleet.versions().values()) == {"1-aa"}


def test_board_that_is_away_is_brought_along_later(fleet) -> None:
    kit, away = pack(fleet.folder, "7", 7), list(fleet.layouts)[-1]
    written = fleet.inventory.read_text()
    # Nobody listens there.
    fleet.inventory.write_text(written.replace(f"-p {fleet.ports[away]} ", "-p 1 "))
    done = deploy(fleet, kit, min_faces=0)
    fleet.inventory.write_text(written)
    assert (done.returncode, f"{away}: root@127.0.0.1: can't be reached" in done.stdout) == (1, True), done.stdout
    assert {name for name, version in fleet.versions().items() if version != "7-aa"} == {away}
    done = deploy(fleet, kit, min_faces=0)
    assert (done.returncode, set(fleet.versions().values())) == (0, {"7-aa"})


def test_rollout_waits_for_its_first_board(fleet) -> None:
    written, before = fleet.inventory.read_text(), fleet.versions()
    fleet.inventory.write_text(written.replace(f"-p {fleet.ports['door-000']} ", "-p 1 "))
    done = deploy(fleet, pack(fleet.folder, "75", 7))
    fleet.inventory.write_text(written)
    assert done.returncode == 2
    told = "error: no board of wave 1 can be reached; run the same command again later"
    assert done.stderr.splitlines()[-1] == told
    assert fleet.versions() == before


def test_power_cuts_leave_a_working_version_and_the_same_command_continues(fleet) -> None:
    """Cut the workstation's power, that of the boards, or both, at any step; nothing is done by hand."""
    kit, randomness, before = pack(fleet.folder, "8", 8), random.Random(8), fleet.versions()
    command = fleet.command("deploy", kit=kit, watch_minutes=0, min_faces=0, parallel=4)
    roots = [Path(layout.root) for layout in fleet.layouts.values()]
    cuts = killed = 0
    began = time.monotonic()
    for cut in range(100):
        with (fleet.folder / "out").open("w") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(randomness.uniform(0.2, 1.5) if cuts < 12 else 300)
        if process.poll() is None:
            cuts += 1
            hit = ("workstation", "both", "workstation", "boards")[cut % 4]
            if hit != "workstation":
                # Wait until a board is being installed.
                while not (ended := end_work_on(roots)) and process.poll() is None:
                    time.sleep(0.02)
                killed += ended
            if hit != "boards" and process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            # Without the workstation's power cut it goes on with the other boards.
            process.wait(300)
        assert set(fleet.versions().values()) <= {*before.values(), "8-aa"}
        assert fleet.broken() == []
        if process.returncode == 0:
            break
    print(f"{cuts} power cuts, {killed} processes killed on boards, {time.monotonic() - began:.0f} s")
    assert cuts >= 3
    assert killed >= 1
    assert set(fleet.versions().values()) == {"8-aa"}


def test_good_version_reaches_all_boards(fleet) -> None:
    kit, began = pack(fleet.folder, "9", 9), time.monotonic()
    with Doors(fleet, {"9-aa": 0.12}):
        done = deploy(fleet, kit)
    print(f"{COUNT} boards in {time.monotonic() - began:.0f} s")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == f"9-aa is on {COUNT} of {COUNT} boards"
    assert set(fleet.versions().values()) == {"9-aa"}
    assert fleet.broken() == []


def test_status_shows_all_boards(fleet) -> None:
    began = time.monotonic()
    done = fleet.fleet("status")
    print(f"{done.stdout}{COUNT} boards asked in {time.monotonic() - began:.0f} s")
    lines = done.stdout.splitlines()
    assert (done.returncode, lines[0]) == (0, f"{COUNT} boards: {COUNT} on 9-aa; {COUNT} signed")
    assert sum(line.count(".") for line in lines[3:]) == COUNT
