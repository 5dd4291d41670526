"""A day in a board's life: installed without a network, its power cut, faces at its camera, the camera failing, undone.

The tests tell one story on one board and are run in this order.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from board_setup.workstation.virtual_board import VirtualBoard

TOOL = "python3 /mnt/host/setup-board.pyz"
INSTALL = f"{TOOL} install --kit /mnt/host/kit.tar --user edge"
RESULTS = "/var/log/deepfake-edge/results.jsonl"
PATIENCE_S = 1200.0
"""Everything takes some ten times as long as on a real board, and ten times as long again on a busy machine."""

SNAPSHOT = """
import hashlib, os, stat
SEEN = ("/etc", "/opt", "/home", "/root", "/srv", "/usr", "/var")
# What a running system writes of its own accord.
OWN = ("/var/log", "/var/lib/systemd", "/var/tmp", "/var/cache/ldconfig", "/etc/machine-id")
OWN += ("/etc/group-", "/etc/gshadow-", "/var/lib/dpkg/status-old")
# Its timers, which copy dpkg's notes and look for updates once a day.
OWN += ("/var/backups", "/var/lib/apt", "/var/cache/apt")
for top in SEEN:
    for base, folders, files in os.walk(top):
        folders[:] = [name for name in folders if not os.path.join(base, name).startswith(OWN)]
        for path in [os.path.join(base, name) for name in files + folders]:
            if path.startswith(OWN):
                continue
            info = os.lstat(path)
            text = "%o %d:%d" % (info.st_mode, info.st_uid, info.st_gid)
            if stat.S_ISREG(info.st_mode):
                text += " %d" % info.st_size
                if not path.startswith("/usr"):
                    text += " " + hashlib.sha256(open(path, "rb").read()).hexdigest()
            elif stat.S_ISLNK(info.st_mode):
                text += " " + os.readlink(path)
            print(path, text)
"""


class Story:
    """What later tests need to know of earlier ones."""

    before: set[str]


story = Story()


def results(board: VirtualBoard) -> list[dict]:
    """Return what the service wrote; the shared folder carries more, and faster, than what a command prints."""
    board.run(f"cat {RESULTS} > /mnt/host/results.jsonl", check=False)
    text = Path(board.share, "results.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines() if line.endswith("}")]


def states(lines: list[dict]) -> list[str]:
    return [line["state"] for line in lines]


def after_a_loss(lines: list[dict]) -> list[str]:
    """Return the states that followed the first loss."""
    found = states(lines)
    return found[found.index("lost") :] if "lost" in found else []


def wait_for(board: VirtualBoard, seen: Callable[[list[dict]], bool], what: str) -> list[dict]:
    """Wait until the results show it; a board that never does so fails with what it said last."""
    ends = time.monotonic() + PATIENCE_S
    while time.monotonic() < ends:
        found = results(board)
        if seen(found):
            return found
        time.sleep(2.0)
    said = board.run("journalctl -u deepfake-edge -n 25 -o cat --no-pager; systemctl status deepfake-edge", check=False)
    pytest.fail(f"{what} did not come:\n{said.out}\nlast results: {results(board)[-5:]}")


def forget_results(board: VirtualBoard) -> None:
    """Begin the results anew, as rotation does."""
    board.run(
        "systemctl stop deepfake-edge; rm -f /var/log/private/deepfake-edge/*; systemctl start --no-block deepfake-edge"
    )


def show(board: VirtualBoard, faces: str) -> None:
    """Put a camera in that shows the drawn faces of that name."""
    board.run("modprobe v4l2loopback video_nr=0 exclusive_caps=1 card_label=Faces; udevadm settle")
    board.run("systemctl stop feeder 2>/dev/null", check=False)
    feeder = f"python3 /mnt/host/.virtual-board/camera.py /dev/video0 /mnt/host/faces/{faces} --fps 5"
    board.run(f"systemd-run --unit feeder --collect {feeder}")


def inject(board: VirtualBoard, fault: str, times: int = 1) -> None:
    """Let the kernel's camera fail; a control that its driver does not have is told with those that it has."""
    known = board.run("v4l2-ctl -d /dev/video0 --list-ctrls").out
    assert fault in known.split(), f"this kernel's vivid has no {fault}:\n{known}"
    for _ in range(times):
        board.run(f"v4l2-ctl -d /dev/video0 -c {fault}=1; sleep 0.3")


def take_out(board: VirtualBoard, driver: str) -> None:
    """Take a camera's driver out, as soon as nobody holds its device."""
    ends = time.monotonic() + PATIENCE_S
    while board.run(f"rmmod {driver}", check=False).code:
        assert time.monotonic() < ends, f"{driver} stays in use"
        time.sleep(1.0)


def snapshot(board: VirtualBoard, share: Path) -> set[str]:
    (share / "snapshot.py").write_text(SNAPSHOT)
    board.run("python3 /mnt/host/snapshot.py > /mnt/host/snapshot.txt", timeout_s=PATIENCE_S)
    return set((share / "snapshot.txt").read_text().splitlines())


def doctor(board: VirtualBoard) -> dict[str, dict[str, str]]:
    done = board.run(f"{TOOL} doctor --json", check=False, timeout_s=PATIENCE_S)
    return {row["name"]: row for row in json.loads(done.out)["rows"]}


def test_it_has_the_boards_cpu_and_no_network(board) -> None:
    assert "SnowRidge" in board.run("grep -m1 'model name' /proc/cpuinfo").out
    assert " avx" not in board.run("grep -m1 flags /proc/cpuinfo").out
    assert board.run("ls /sys/class/net").out.split() == ["lo"]


def test_the_doctor_of_a_bare_board_misses_camera_and_runtime_only(board, share) -> None:
    rows = doctor(board)
    assert {name for name, row in rows.items() if row["state"] != "ok"} == {"camera", "runtime"}
    assert "no AVX" in rows["cpu"]["seen"]
    board.run("useradd -m edge")
    story.before = snapshot(board, share)


def test_a_power_cut_in_the_middle_is_made_good_by_the_same_command(board) -> None:
    board.run(f"{INSTALL} > /var/tmp/install.log 2>&1 &")
    ends = time.monotonic() + PATIENCE_S
    while "runtime …" not in board.run("cat /var/tmp/install.log").out and time.monotonic() < ends:
        time.sleep(1.0)
    time.sleep(8.0)
    assert "is installed" not in board.run("cat /var/tmp/install.log; ls /opt/deepfake-edge/runtimes").out
    board.power_cut()
    board.power_on()
    said = board.run(f"{INSTALL}; rm -f /var/tmp/install.log", timeout_s=PATIENCE_S).out
    assert "kit: unpack kit.tar and check every file (already so)" in said
    assert said.rstrip().endswith("is installed")


def test_it_brought_the_kits_packages_and_the_groups(board) -> None:
    assert board.run("cat /usr/share/stand-in-driver/driver").out == "driver"
    assert {"video", "render"} <= set(board.run("id -nG edge").out.split())


def test_the_service_is_locked_up_well(board) -> None:
    unit = "/etc/systemd/system/deepfake-edge.service"
    verified = board.run(f"systemd-analyze verify {unit}")
    assert (verified.out, verified.err) == ("", "")
    overall = board.run("systemd-analyze security --no-pager deepfake-edge.service | tail -1").out
    assert float(overall.split(":")[1].split()[0]) < 3.0


def test_after_a_reboot_systemd_starts_it_and_a_camera_with_fakes_gets_verdicts(board) -> None:
    board.reboot()
    show(board, "fake")
    found = wait_for(board, lambda lines: any(line["faces"] for line in lines), "a face")
    (face,) = next(line["faces"] for line in found if line["faces"])
    assert (face["verdict"], face["detection"] > 0.45) == ("fake", True)
    left, top, right, bottom = face["box"]
    assert left < 318 < right
    assert top < 250 < bottom


def test_real_faces_before_the_same_camera_get_the_other_verdict(board) -> None:
    show(board, "real")
    real = wait_for(
        board, lambda lines: lines[-1:] and any(f["verdict"] == "real" for f in lines[-1]["faces"]), "a real"
    )
    assert max(line["age_ms"] for line in real[-3:]) < 60_000


def test_the_doctor_of_a_ready_board_finds_no_fault(board) -> None:
    rows = doctor(board)
    assert {name: row["seen"] for name, row in rows.items() if row["state"] != "ok"} == {}
    assert rows["service"]["seen"] == "active"
    assert "used by deepfake-edge.service" in rows["camera"]["seen"]


def test_a_version_that_does_not_run_makes_room_for_the_last_good_one(board) -> None:
    before = board.run("readlink /var/lib/deepfake-edge/current").out
    done = board.run(f"{TOOL} install --kit /mnt/host/broken.tar", check=False, timeout_s=PATIENCE_S)
    assert done.code == 2
    assert "does not stay up: error: this version is broken; returned to 1.4.0-" in done.err
    assert board.run("readlink /var/lib/deepfake-edge/current").out == before
    assert board.run("systemctl is-active deepfake-edge").out == "active\n"


def test_the_camera_has_a_name_that_stays(board) -> None:
    assert board.run("readlink -f /dev/deepfake-edge-camera").out == "/dev/video0\n"
    known = board.run("udevadm info --query=property --name=/dev/video0").out
    assert ":capture:" in known.split("ID_V4L_CAPABILITIES=")[1].splitlines()[0]


def test_a_camera_that_breaks_down_is_lost_and_opened_again(board) -> None:
    board.run("systemctl stop feeder deepfake-edge")
    board.run(f"echo 'DETECT_OPTIONS=--camera 0 --faces off --jsonl {RESULTS}' > /etc/default/deepfake-edge")
    take_out(board, "v4l2loopback")
    board.run("modprobe vivid n_devs=1; udevadm settle")
    # Of its many nodes only the one that gives pictures has the name.
    assert board.run("readlink -f /dev/deepfake-edge-camera").out == "/dev/video0\n"
    forget_results(board)
    wait_for(board, lambda lines: states(lines).count("ok") >= 2, "frames of the test picture")
    board.run("v4l2-ctl -d /dev/video0 -c disconnect=1")
    # The kernel puts it back as soon as nobody holds it any more.
    wait_for(board, lambda lines: "ok" in after_a_loss(lines), "verdicts after the loss")


def test_a_camera_pulled_out_stays_lost_until_it_is_put_in_again(board) -> None:
    board.run("echo vivid.0 > /sys/bus/platform/drivers/vivid/unbind")
    take_out(board, "vivid")
    wait_for(board, lambda lines: states(lines)[-1] == "lost", "the loss")
    lost = len(results(board))
    board.run("modprobe vivid n_devs=1; udevadm settle")
    wait_for(board, lambda lines: "ok" in states(lines[lost:]), "verdicts after the return")


def test_a_camera_that_drops_most_of_its_frames_goes_on_giving_verdicts(board) -> None:
    board.run("v4l2-ctl -d /dev/video0 -c percentage_of_dropped_buffers=60")
    before = len(results(board))
    wait_for(board, lambda lines: states(lines[before:]).count("ok") >= 10, "verdicts")
    board.run("v4l2-ctl -d /dev/video0 -c percentage_of_dropped_buffers=0")


def test_a_camera_whose_stream_fails_is_lost_and_opened_again(board) -> None:
    before = len(results(board))
    inject(board, "inject_fatal_streaming_error")
    wait_for(board, lambda lines: "ok" in after_a_loss(lines[before:]), "verdicts after the loss")


@pytest.mark.parametrize("fault", ["inject_v4l2_buf_flag_error", "inject_vidioc_qbuf_error"])
def test_a_camera_whose_buffers_fail_goes_on_giving_verdicts(board, fault) -> None:
    # More often than it has buffers: one that can't be given back to the driver is lost to it for good.
    inject(board, fault, times=8)
    before = len(results(board))
    wait_for(board, lambda lines: states(lines[before:]).count("ok") >= 10, "verdicts")


@pytest.mark.parametrize("fault", ["inject_vidioc_reqbufs_error", "inject_vidioc_streamon_error"])
def test_a_camera_that_does_not_start_at_once_is_tried_again(board, fault) -> None:
    before = len(results(board))
    # This one waits for the next start, which the other brings about.
    inject(board, fault)
    inject(board, "inject_fatal_streaming_error")
    wait_for(board, lambda lines: "ok" in after_a_loss(lines[before:]), "verdicts after the loss")


def test_no_frame_was_judged_twice_and_one_process_did_it_all(board) -> None:
    found = [line for line in results(board) if line["state"] == "ok"]
    numbers = [line["frame"] for line in found]
    assert numbers == sorted(set(numbers))
    assert len({line["time"] for line in found}) == len(found)
    assert board.run("systemctl show deepfake-edge -p NRestarts").out.strip() == "NRestarts=0"


def test_undo_leaves_the_board_as_it_was(board, share) -> None:
    board.run("rm /etc/default/deepfake-edge")
    board.run(f"{TOOL} install --undo", timeout_s=PATIENCE_S)
    after = snapshot(board, share)
    assert sorted(after ^ story.before) == []
    assert {name for name, row in doctor(board).items() if row["state"] != "ok"} == {"runtime"}
