"""A virtual board: installed without a network, its power cut, faces at its camera, the camera failing, undone.

The tests share one board and run in this order.
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
"""Everything takes about ten times as long as on a real board, and again ten times as long on a busy machine."""

SNAPSHOT = """
import hashlib, os, stat
SEEN = ("/etc", "/opt", "/home", "/root", "/srv", "/usr", "/var")
# What a running system writes by itself.
OWN = ("/var/log", "/var/lib/systemd", "/var/tmp", "/var/cache/ldconfig", "/etc/machine-id")
OWN += ("/etc/group-", "/etc/gshadow-", "/var/lib/dpkg/status-old")
# Daily timers back up the status of dpkg and look for updates.
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
    """State shared between the tests."""

    before: set[str]


story = Story()


def results(board: VirtualBoard) -> list[dict]:
    """Return the service's frames and states, through the shared folder, which is faster than a command's output."""
    board.run(f"cat {RESULTS} > /mnt/host/results.jsonl", check=False)
    text = Path(board.share, "results.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines() if line.endswith("}")]
    return [line for line in lines if line["state"] != "summary"]


def states(lines: list[dict]) -> list[str]:
    return [line["state"] for line in lines]


def judged(lines: list[dict]) -> list[dict]:
    """Return the faces that were judged in their frames, not followed there or still with the device."""
    return [face for line in lines for face in line["faces"] if face["score"] is not None]


def after_a_loss(lines: list[dict]) -> list[str]:
    """Return the states that followed the first loss."""
    found = states(lines)
    return found[found.index("lost") :] if "lost" in found else []


def wait_for(board: VirtualBoard, seen: Callable[[list[dict]], bool], what: str) -> list[dict]:
    """Wait until the results show it; fail with the journal if they never do."""
    ends = time.monotonic() + PATIENCE_S
    while time.monotonic() < ends:
        found = results(board)
        if seen(found):
            return found
        time.sleep(2.0)
    said = board.run("journalctl -u deepfake-edge -n 25 -o cat --no-pager; systemctl status deepfake-edge", check=False)
    pytest.fail(f"{what} did not come:\n{said.out}\nlast results: {results(board)[-5:]}")


def forget_results(board: VirtualBoard) -> None:
    """Start a new results file, as rotation does."""
    board.run(
        "systemctl stop deepfake-edge; rm -f /var/log/private/deepfake-edge/*; systemctl start --no-block deepfake-edge"
    )


def show(board: VirtualBoard, faces: str) -> None:
    """Plug in a camera that shows the drawn faces of that name."""
    board.run("modprobe v4l2loopback video_nr=0 exclusive_caps=1 card_label=Faces; udevadm settle")
    board.run("systemctl stop feeder 2>/dev/null", check=False)
    feeder = f"python3 /mnt/host/.virtual-board/camera.py /dev/video0 /mnt/host/faces/{faces} --fps 5"
    board.run(f"systemd-run --unit feeder --collect {feeder}")


def inject(board: VirtualBoard, fault: str, times: int = 1) -> None:
    """Make the kernel's camera fail."""
    known = board.run("v4l2-ctl -d /dev/video0 --list-ctrls").out
    assert fault in known.split(), f"this kernel's vivid has no {fault}:\n{known}"
    for _ in range(times):
        board.run(f"v4l2-ctl -d /dev/video0 -c {fault}=1; sleep 0.3")


def take_out(board: VirtualBoard, driver: str) -> None:
    """Unload a camera's driver, as soon as nobody has its device open."""
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


def test_cpu_and_network(board) -> None:
    assert "SnowRidge" in board.run("grep -m1 'model name' /proc/cpuinfo").out
    assert " avx" not in board.run("grep -m1 flags /proc/cpuinfo").out
    assert board.run("ls /sys/class/net").out.split() == ["lo"]


def test_bare_board_lacks_camera_and_runtime(board, share) -> None:
    rows = doctor(board)
    assert {name for name, row in rows.items() if row["state"] != "ok"} == {"camera", "runtime"}
    assert "no AVX" in rows["cpu"]["seen"]
    board.run("useradd -m edge")
    story.before = snapshot(board, share)


def test_same_command_continues_after_a_power_cut(board) -> None:
    board.run(f"{INSTALL} > /var/tmp/install.log 2>&1 &")
    ends = time.monotonic() + PATIENCE_S
    while "runtime …" not in board.run("cat /var/tmp/install.log").out and time.monotonic() < ends:
        time.sleep(1.0)
    time.sleep(8.0)
    assert "is installed" not in board.run("cat /var/tmp/install.log; ls /opt/deepfake-edge/runtimes").out
    board.power_cut()
    board.power_on()
    said = board.run(f"{INSTALL}; rm -f /var/tmp/install.log", timeout_s=PATIENCE_S).out
    assert "kit: unpack kit.tar and check every file (done)" in said
    assert "is installed\n" in said


def test_packages_and_groups_are_installed(board) -> None:
    assert board.run("cat /usr/share/stand-in-driver/driver").out == "driver"
    assert {"video", "render"} <= set(board.run("id -nG edge").out.split())


def test_unit_is_valid_and_safe(board) -> None:
    unit = "/etc/systemd/system/deepfake-edge.service"
    verified = board.run(f"systemd-analyze verify {unit}")
    assert (verified.out, verified.err) == ("", "")
    overall = board.run("systemd-analyze security --no-pager deepfake-edge.service | tail -1").out
    assert float(overall.split(":")[1].split()[0]) < 3.0


def test_fakes_at_the_camera_after_a_reboot(board) -> None:
    board.reboot()
    show(board, "fake")
    found = wait_for(board, lambda lines: judged(lines) != [], "a judged face")
    face = judged(found)[0]
    assert (face["verdict"], face["detection"] > 0.45) == ("fake", True)
    left, top, right, bottom = face["box"]
    assert left < 318 < right
    assert top < 250 < bottom


def test_real_faces_at_the_same_camera(board) -> None:
    show(board, "real")
    real = wait_for(
        board, lambda lines: lines[-1:] and any(f["verdict"] == "real" for f in lines[-1]["faces"]), "a real"
    )
    assert max(line["age_ms"] for line in real[-3:]) < 60_000


def test_doctor_finds_no_fault(board) -> None:
    rows = doctor(board)
    assert {name: row["seen"] for name, row in rows.items() if row["state"] != "ok"} == {}
    assert rows["service"]["seen"] == "active"
    assert "used by deepfake-edge.service" in rows["camera"]["seen"]
    assert "\nservice  active" in board.run(f"{TOOL} status").out


def test_version_that_does_not_run_is_replaced(board) -> None:
    before = board.run("readlink /var/lib/deepfake-edge/current").out
    done = board.run(f"{TOOL} install --kit /mnt/host/broken.tar", check=False, timeout_s=PATIENCE_S)
    assert done.code == 2
    assert "does not stay up: error: this version is broken; returned to 1.4.0-" in done.err
    assert board.run("readlink /var/lib/deepfake-edge/current").out == before
    assert board.run("systemctl is-active deepfake-edge").out == "active\n"
    assert "this version is broken" not in board.run(f"{TOOL} status").out


def test_camera_has_a_fixed_name(board) -> None:
    assert board.run("readlink -f /dev/deepfake-edge-camera").out == "/dev/video0\n"
    known = board.run("udevadm info --query=property --name=/dev/video0").out
    assert ":capture:" in known.split("ID_V4L_CAPABILITIES=")[1].splitlines()[0]


def test_broken_camera_is_opened_again(board) -> None:
    board.run("systemctl stop feeder deepfake-edge")
    board.run(f"echo 'DETECT_OPTIONS=--camera 0 --faces off --jsonl {RESULTS}' > /etc/default/deepfake-edge")
    take_out(board, "v4l2loopback")
    board.run("modprobe vivid n_devs=1; udevadm settle")
    # Only the capture node of its many nodes gets the name.
    assert board.run("readlink -f /dev/deepfake-edge-camera").out == "/dev/video0\n"
    forget_results(board)
    wait_for(board, lambda lines: states(lines).count("ok") >= 2, "frames of the test picture")
    board.run("v4l2-ctl -d /dev/video0 -c disconnect=1")
    # The kernel reconnects it as soon as nobody has it open.
    wait_for(board, lambda lines: "ok" in after_a_loss(lines), "verdicts after the loss")


def test_unplugged_camera_is_lost_until_it_returns(board) -> None:
    board.run("echo vivid.0 > /sys/bus/platform/drivers/vivid/unbind")
    take_out(board, "vivid")
    wait_for(board, lambda lines: states(lines)[-1] == "lost", "the loss")
    lost = len(results(board))
    board.run("modprobe vivid n_devs=1; udevadm settle")
    wait_for(board, lambda lines: "ok" in states(lines[lost:]), "verdicts after the return")


def test_dropped_frames_are_survived(board) -> None:
    board.run("v4l2-ctl -d /dev/video0 -c percentage_of_dropped_buffers=60")
    before = len(results(board))
    wait_for(board, lambda lines: states(lines[before:]).count("ok") >= 10, "verdicts")
    board.run("v4l2-ctl -d /dev/video0 -c percentage_of_dropped_buffers=0")


def test_failed_stream_is_opened_again(board) -> None:
    before = len(results(board))
    inject(board, "inject_fatal_streaming_error")
    wait_for(board, lambda lines: "ok" in after_a_loss(lines[before:]), "verdicts after the loss")


@pytest.mark.parametrize("fault", ["inject_v4l2_buf_flag_error", "inject_vidioc_qbuf_error"])
def test_failed_buffers_are_survived(board, fault) -> None:
    # More often than it has buffers: one that can't be returned to the driver is lost for good.
    inject(board, fault, times=8)
    before = len(results(board))
    wait_for(board, lambda lines: states(lines[before:]).count("ok") >= 10, "verdicts")


@pytest.mark.parametrize("fault", ["inject_vidioc_reqbufs_error", "inject_vidioc_streamon_error"])
def test_camera_that_fails_to_start_is_tried_again(board, fault) -> None:
    before = len(results(board))
    # The first fault takes effect at the next start, which the second one causes.
    inject(board, fault)
    inject(board, "inject_fatal_streaming_error")
    wait_for(board, lambda lines: "ok" in after_a_loss(lines[before:]), "verdicts after the loss")


def test_no_frame_was_judged_twice(board) -> None:
    found = [line for line in results(board) if line["state"] == "ok"]
    numbers = [line["frame"] for line in found]
    assert numbers == sorted(set(numbers))
    assert len({line["time"] for line in found}) == len(found)
    assert board.run("systemctl show deepfake-edge -p NRestarts").out.strip() == "NRestarts=0"


STAND_IN = """
def _on_cpu(self, path, contract, *, device="CPU", start=Classifier.__init__, **options):
    self.device = device
    start(self, path, contract, device="CPU", **options)


def _slow_on_cpu(self, pixels, compute=Classifier.rows):
    __import__("time").sleep(0.5 if self.device == "CPU" else 0.0)
    return compute(self, pixels)


Classifier.__init__, Classifier.rows = _on_cpu, _slow_on_cpu
"""
"""Added to `Classifier` on the board, which has no graphics: a "GPU" that computes on the CPU, and a slower CPU."""


def journal(board: VirtualBoard) -> str:
    return board.run("journalctl -u deepfake-edge -b -o cat --no-pager").out


def test_power_cut_while_devices_are_measured(board, share) -> None:
    board.run("systemctl stop deepfake-edge")
    (share / "classifier.py").write_text(STAND_IN)
    # The emulated board takes minutes for what takes a board seconds.
    (share / "tuning.py").write_text(f'devices_here = lambda: ["CPU", "GPU"]\nTRIAL_TIMEOUT_S = {PATIENCE_S}\n')
    board.run(
        "cd /opt/deepfake-edge/runtimes/*/lib/python*/site-packages/edge_runtime/inference && "
        "for name in classifier tuning; do cat /mnt/host/$name.py >> $name.py; done; sync"
    )
    forget_results(board)
    # It judges on the CPU while it measures.
    wait_for(board, lambda lines: any(line.get("device") == "CPU" for line in lines), "a verdict of the CPU")
    said = journal(board)
    assert "measuring CPU and GPU once on this machine" in said
    assert "fastest:" not in said
    board.power_cut()
    board.power_on()
    board.run("modprobe vivid n_devs=1; udevadm settle")
    # The service starts with the camera and measures again; then it switches between two frames.
    found = wait_for(board, lambda lines: any(line.get("device") == "GPU" for line in lines), "a verdict of the GPU")
    numbers = [line["frame"] for line in found if line["state"] == "ok"][-20:]
    assert numbers == sorted(set(numbers))
    assert "fastest: " in journal(board)


def test_second_start_uses_what_was_measured(board) -> None:
    before = journal(board).count("measuring CPU and GPU")
    forget_results(board)
    found = wait_for(board, lambda lines: "ok" in states(lines), "verdicts")
    assert {line["device"] for line in found if line["state"] == "ok"} == {"GPU"}
    assert journal(board).count("measuring CPU and GPU") == before


def test_reload_takes_the_bundle_again_without_a_restart(board) -> None:
    before = len(results(board))
    board.run("systemctl reload deepfake-edge")
    wait_for(board, lambda lines: "now judging with" in journal(board), "the reloaded bundle")
    wait_for(board, lambda lines: states(lines[before:]).count("ok") >= 2, "verdicts")
    assert board.run("systemctl show deepfake-edge -p NRestarts").out.strip() == "NRestarts=0"


FORWARD = "deepfake-edge-forward.service"


def delivered(share: Path) -> list[dict]:
    """Return the results that the broker delivered, those sent twice once."""
    lines = [json.loads(line) for line in (share / "messages.jsonl").read_text().splitlines() if line.endswith("]")]
    messages = [json.loads(text) for topic, text in lines if topic == "deepfake-edge/door/results"]
    return list({message["id"]: message for message in messages}.values())


def wait_for_delivery(board: VirtualBoard, share: Path) -> None:
    """Wait until all results that are there now were delivered."""
    written = {line["time"] for line in results(board)}
    ends = time.monotonic() + PATIENCE_S
    while not written <= {message.get("time") for message in delivered(share)}:
        if time.monotonic() > ends:
            said = board.run(f"journalctl -u {FORWARD} -u broker -u reader -n 40 -o cat --no-pager", check=False)
            pytest.fail(f"{len(written)} results, {len(delivered(share))} delivered:\n{said.out}")
        time.sleep(2.0)


def test_forward_unit_is_valid_and_safe(board) -> None:
    # Enabled, but not started: nobody has said where the broker is.
    assert board.run(f"systemctl is-enabled {FORWARD}").out == "enabled\n"
    assert board.run(f"systemctl is-active {FORWARD}", check=False).out == "inactive\n"
    verified = board.run(f"systemd-analyze verify /etc/systemd/system/{FORWARD}")
    assert (verified.out, verified.err) == ("", "")
    overall = board.run(f"systemd-analyze security --no-pager {FORWARD} | tail -1").out
    assert float(overall.split(":")[1].split()[0]) < 3.0


def test_results_reach_a_broker(board, share, broker) -> None:
    """A service of its own reads the camera's results and logs in with a password that only root can read."""
    (share / "messages.jsonl").write_text("")
    board.run("cp -r /mnt/host/broker /var/tmp/broker")
    board.run(broker)
    options = "--unit reader --collect -p Restart=always -p RestartSec=1 --setenv=PYTHONDONTWRITEBYTECODE=1"
    python = "/var/lib/deepfake-edge/current/runtime/bin/python"
    board.run(f"systemd-run {options} {python} /mnt/host/broker/reader.py")
    ends = time.monotonic() + PATIENCE_S
    while "subscribed" not in (share / "messages.jsonl").read_text():
        assert time.monotonic() < ends, board.run("journalctl -u broker -u reader -n 40 -o cat --no-pager").out
        time.sleep(1.0)
    board.run("(umask 077; mkdir -p /etc/deepfake-edge/mqtt; echo secret > /etc/deepfake-edge/mqtt/password)")
    options = "mqtt://127.0.0.1 --board door --user door --password-file password"
    board.run(f"""echo 'FORWARD_OPTIONS="{options}"' > /etc/default/deepfake-edge-forward""")
    board.run(f"systemctl start {FORWARD}", timeout_s=PATIENCE_S)
    wait_for_delivery(board, share)
    assert ["deepfake-edge/door/status", "online"] in [
        json.loads(line) for line in (share / "messages.jsonl").read_text().splitlines()
    ]


def test_an_outage_of_the_broker_loses_nothing(board, share, broker) -> None:
    before = len(delivered(share))
    board.run("systemctl stop broker")
    count = len(results(board))
    wait_for(board, lambda lines: len(lines) >= count + 3, "results during the outage")
    board.run(broker)
    wait_for_delivery(board, share)
    assert len(delivered(share)) >= before + 3
    assert board.run(f"systemctl show {FORWARD} -p NRestarts").out.strip() == "NRestarts=0"


def test_the_camera_has_no_network_and_the_forwarder_no_camera(board) -> None:
    def main_pid(unit: str) -> str:
        return board.run(f"systemctl show {unit} -p MainPID --value").out.strip()

    camera, forward = main_pid("deepfake-edge"), main_pid(FORWARD)
    ours, cameras, forwards = (board.run(f"readlink /proc/{pid}/ns/net").out for pid in ("1", camera, forward))
    assert cameras != ours == forwards
    assert board.run("systemctl show deepfake-edge -p PrivateNetwork").out == "PrivateNetwork=yes\n"
    assert board.run(f"nsenter --target {forward} --mount ls /dev").out.split().count("video0") == 0
    users = {board.run(f"stat -c %u /proc/{pid}").out.strip() for pid in (camera, forward)}
    assert len(users) == 1
    assert users != {"0"}
    board.run(f"systemctl stop {FORWARD} reader broker")
    board.run("rm -r /etc/default/deepfake-edge-forward /etc/deepfake-edge/mqtt /var/tmp/broker")
    board.run("rmdir --ignore-fail-on-non-empty /etc/deepfake-edge")


def test_undo_restores_the_board(board, share) -> None:
    board.run("rm /etc/default/deepfake-edge")
    board.run(f"{TOOL} install --undo", timeout_s=PATIENCE_S)
    after = snapshot(board, share)
    assert sorted(after ^ story.before) == []
    assert {name for name, row in doctor(board).items() if row["state"] != "ok"} == {"runtime"}
