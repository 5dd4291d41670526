"""Rollouts in waves over real networks and ssh servers with signed kits; FLEET_BOARDS=200 for as many boards."""

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
from helpers.fleet import SSHD, Doors, Fleet, can_make_boards, installing
from helpers.kits import make_kit, tool
from helpers.waiting import until

from board_setup.board.layout import SERVICE
from board_setup.workstation.sign import make_key, sign_kit

COUNT = int(os.environ.get("FLEET_BOARDS", "6"))
CUTS = int(os.environ.get("FLEET_CUTS", "6"))

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def fleet(tmp_path_factory) -> Iterator[Fleet]:
    """Boards with version 1 that trust one key; later tests find what earlier ones installed."""
    if os.geteuid() or SSHD is None or shutil.which("rsync") is None or not Path("/usr/bin/python3").exists():
        pytest.skip("needs root, openssh-server, rsync and the distribution's Python")
    if not can_make_boards():
        pytest.skip("needs iproute2 and util-linux, and network namespaces with a bridge")
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


@pytest.mark.parametrize(
    ("options", "told"),
    [("-i none", "Permission denied (publickey"), ("-o StrictHostKeyChecking=yes", "Host key verification failed.")],
)
def test_refused_connections_say_why(fleet, options, told) -> None:
    """The wrong key, and a board whose own key is not known, perhaps since another took its address."""
    written = fleet.inventory.read_text()
    fleet.inventory.write_text(
        written.replace('"ssh -i', f'"ssh {options} -F none -i', 1).replace("/user ", "/host ", 1)
    )
    done = deploy(fleet, pack(fleet.folder, "35", 35))
    fleet.inventory.write_text(written)
    address = fleet.addresses["door-000"]
    assert f"door-000: root@{address}: can't be reached (" in done.stdout, done.stdout
    assert told in done.stdout
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_what_this_machine_lacks_is_told_before_any_board_is_asked(fleet, monkeypatch) -> None:
    kit = pack(fleet.folder, "36", 36)
    monkeypatch.setenv("PATH", str(fleet.folder))
    command = fleet.command("deploy", kit=kit)
    lacking = subprocess.run([shutil.which("nsenter", path="/usr/bin"), *command[1:]], capture_output=True, text=True)
    assert (lacking.returncode, lacking.stdout) == (2, "")
    assert lacking.stderr == "error: rsync is not installed; run: sudo apt-get install rsync\n"


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


def test_board_that_fails_after_the_switch_is_rolled_back(fleet) -> None:
    """The counter of its kits can't be written, which is the last step of an installation."""
    record = Path(fleet.layouts["door-000"].trusted, "last.json")
    record.rename(record.with_name("kept"))
    record.mkdir()
    (record / "file").touch()
    try:
        done = deploy(fleet, pack(fleet.folder, "55", 55))
    finally:
        shutil.rmtree(record)
        record.with_name("kept").rename(record)
    assert "halted: installing failed on 1 (limit 0): door-000: signature: " in done.stdout, done.stdout
    assert (done.returncode, set(fleet.versions().values())) == (1, {"1-aa"})


def test_drift_halts_a_wave(fleet) -> None:
    layout = fleet.layouts["door-000"]
    path = Path(layout.at("/var/lib/deepfake-edge-state/monitor/status.json"))
    path.parent.mkdir(parents=True)
    kit = pack(fleet.folder, "6", 6)
    command = fleet.command("deploy", kit=kit, watch_minutes=60, poll_seconds=0.5, min_faces=0)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        until(lambda: fleet.versions()["door-000"] == "6-aa", 60)
        path.write_text(json.dumps({"state": "drift", "since": "today", "reason": "blurred faces"}))
        out, _ = process.communicate(timeout=60)
    path.unlink()
    assert process.returncode == 1
    assert "halted: drift on door-000 (limit 0): blurred faces" in out
    assert set(fleet.versions().values()) == {"1-aa"}


def test_board_that_is_away_or_new_is_brought_along_later(fleet) -> None:
    kit, (away, new) = pack(fleet.folder, "7", 7), list(fleet.layouts)[-2:]
    fleet.power_off(away)
    fleet.write_inventory(new)
    done = deploy(fleet, kit, min_faces=0)
    fleet.power_on(away)
    fleet.write_inventory()
    assert done.returncode == 1
    told = (
        f"{away}: root@{fleet.addresses[away]}: can't be reached (ssh: connect to host {fleet.addresses[away]} port 22:"
    )
    assert told in done.stdout, done.stdout + done.stderr
    assert {name for name, version in fleet.versions().items() if version != "7-aa"} == {away, new}
    done = deploy(fleet, kit, min_faces=0)
    assert (done.returncode, set(fleet.versions().values())) == (0, {"7-aa"}), done.stdout + done.stderr


def test_rollout_waits_for_its_first_board(fleet) -> None:
    before = fleet.versions()
    fleet.power_off("door-000")
    done = deploy(fleet, pack(fleet.folder, "75", 7))
    fleet.power_on("door-000")
    assert done.returncode == 2
    told = "error: no board of wave 1 can be reached; run the same command again later"
    assert done.stderr.splitlines()[-1] == told
    assert fleet.versions() == before


def test_board_lost_with_a_bad_version_is_rolled_back_later(fleet) -> None:
    """The second wave's first board fails; another was switched, but vanishes before it can be rolled back."""
    kit, before = pack(fleet.folder, "76", 76), fleet.versions()
    failing, lost = list(fleet.layouts)[:2]
    folder = Path(fleet.layouts[failing].root, "opt/deepfake-edge/versions/76-aa")
    folder.parent.mkdir(parents=True, exist_ok=True)
    command = fleet.command("deploy", kit=kit, waves="2,100%", watch_minutes=60, poll_seconds=0.5, min_faces=0)
    status = Path(fleet.layouts[failing].at("/var/lib/deepfake-edge-state/monitor/status.json"))
    status.parent.mkdir(parents=True, exist_ok=True)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        until(lambda: fleet.count("76-aa") == 2, 60)
        fleet.power_off(lost)
        status.write_text(json.dumps({"state": "drift", "since": "today", "reason": "blurred faces"}))
        out, _ = process.communicate(timeout=120)
    status.unlink()
    assert (process.returncode, f"{lost}: not rolled back" in out) == (1, True), out
    assert {name for name, version in fleet.versions().items() if version != before[name]} == {lost}
    fleet.power_on(lost)
    again = deploy(fleet, kit, waves="2,100%")
    assert (again.returncode, fleet.versions()) == (1, before), again.stdout


def test_ctrl_c_stops_at_once_and_the_same_command_continues(fleet) -> None:
    kit = pack(fleet.folder, "77", 77)
    options = {"kit": kit, "waves": "100%", "watch_minutes": 0, "min_faces": 0}
    command = fleet.command("deploy", parallel=2, **options)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True) as process:
        until(lambda: fleet.count("77-aa"), 60)
        os.killpg(process.pid, signal.SIGINT)
        _, told = process.communicate(timeout=30)
    assert (process.returncode, told.decode().splitlines()[-1]) == (
        130,
        "stopped; run the same command again to continue",
    )
    assert fleet.count("77-aa") < COUNT
    done = deploy(fleet, **options)
    assert (done.returncode, fleet.count("77-aa")) == (0, COUNT), done.stdout + done.stderr


def test_power_cuts_leave_a_working_version_and_the_same_command_continues(fleet) -> None:
    """Cut the workstation's power, that of boards that install, or both, at any step; nothing is done by hand."""
    kit, randomness, before = pack(fleet.folder, "8", 80), random.Random(8), fleet.versions()
    command = fleet.command("deploy", kit=kit, watch_minutes=0, min_faces=0, parallel=4)
    roots = [Path(layout.root) for layout in fleet.layouts.values()]
    cuts = boards_cut = 0
    began = time.monotonic()
    for cut in range(100):
        with (fleet.folder / "out").open("w") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
        hit: set[str] = set()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(randomness.uniform(0.2, 1.5) if cuts < CUTS else 300)
        if process.poll() is None:
            cuts += 1
            victim = ("workstation", "both", "workstation", "boards")[cut % 4]
            while victim != "workstation" and not hit and process.poll() is None:
                hit = set(installing(roots))
            for name in hit:
                fleet.power_off(name)
            if victim != "boards" and process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            # Without the workstation's power cut it goes on with the other boards.
            process.wait(300)
        for name in hit:
            fleet.power_on(name)
        boards_cut += len(hit)
        assert set(fleet.versions().values()) <= {*before.values(), "8-aa"}
        assert fleet.broken() == []
        if process.returncode == 0:
            break
    print(f"{cuts} power cuts, {boards_cut} of boards in an installation, {time.monotonic() - began:.0f} s")
    assert cuts >= 3
    assert boards_cut >= 1
    assert fleet.count("8-aa") == COUNT


def test_good_version_reaches_all_boards_through_interruptions(fleet) -> None:
    """One board is away from the start, one loses its power while it installs, the workstation loses its twice."""
    kit, began = pack(fleet.folder, "9", 90), time.monotonic()
    away, lost = list(fleet.layouts)[-1], list(fleet.layouts)[COUNT // 2]
    command = fleet.command("deploy", kit=kit, watch_minutes=0, poll_seconds=5)
    fleet.power_off(away)

    def tell(what: str) -> None:
        print(f"{(time.monotonic() - began) / 60:.1f} min: {fleet.count('9-aa')} of {COUNT} boards: {what}", flush=True)

    with Doors(fleet, {"9-aa": 0.12}):
        for reached in (1, COUNT // 3):
            with subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True) as process:
                until(lambda reached=reached: fleet.count("9-aa") >= reached, 1200)
                os.killpg(process.pid, signal.SIGKILL)
            tell("power cut of the workstation")
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            until(Path(fleet.layouts[lost].programs, "kits").exists, 300)
            fleet.power_off(lost)
            tell(f"power cut of {lost} while it installs")
            out, _ = process.communicate(timeout=1200)
        tell(f"the command ends: {out.splitlines()[-1]}")
        assert process.returncode == 1, out
        assert {line.split(":")[0] for line in out.splitlines() if "can't be reached" in line} == {away, lost}
        assert {name for name, version in fleet.versions().items() if version != "9-aa"} <= {away, lost}
        assert fleet.broken() == []
        for name in (away, lost):
            fleet.power_on(name)
        done = deploy(fleet, kit)
    tell("the same command again")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == f"9-aa is on {COUNT} of {COUNT} boards"
    assert fleet.count("9-aa") == COUNT
    assert fleet.broken() == []


def test_status_shows_all_boards(fleet) -> None:
    began = time.monotonic()
    done = fleet.fleet("status")
    print(f"{done.stdout}{COUNT} boards asked in {time.monotonic() - began:.1f} s")
    lines = done.stdout.splitlines()
    (version,) = set(fleet.versions().values())
    assert (done.returncode, lines[0]) == (0, f"{COUNT} boards: {COUNT} on {version}; {COUNT} signed")
    assert sum(line.count(".") for line in lines[3:]) == COUNT
