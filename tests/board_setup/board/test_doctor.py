"""The doctor: every row says what was seen and what mends it, and nothing is changed."""

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from board_setup.board import doctor, layout
from board_setup.board.doctor import FAULT, OK, STATES, WARNING, Row
from board_setup.board.system import System
from board_setup.workstation import twin

ROOT = Path(__file__).resolve().parents[3]
NOVEMBER_2026 = 1_795_000_000
CHECK = f"{layout.BOARD.python} -I -B -m edge_runtime.model.check"
FOUND = {"openvino": "2026.4.1", "error": None, "bundle": "resnet50 1.0, int8", "answer": "int8 on CPU"}


def examined(system: System) -> dict[str, Row]:
    return {row.name: row for row in doctor.examine(system, now=NOVEMBER_2026)}


def states(system: System) -> dict[str, str]:
    return {name: row.state for name, row in examined(system).items()}


def test_a_board_as_delivered_lacks_python_driver_groups_and_runtime(machine) -> None:
    rows = examined(machine("aixboard as delivered"))
    assert {name for name, row in rows.items() if row.state != OK} == {"python", "gpu driver", "groups", "runtime"}
    assert rows["cpu"].seen.startswith("Intel(R) Celeron(R) N5105 @ 2.00GHz, 4 cores, SSE4.2, no AVX: OpenVINO 2025.4")
    assert "pack --python" in rows["python"].mend
    assert "Ubuntu 22.04 or newer" in rows["gpu driver"].mend
    assert rows["groups"].mend.startswith("sudo usermod -aG video,render $USER")
    assert rows["camera"].seen == "/dev/video0 HD Pro Webcam C920 (YUYV, MJPG); who holds it is told with sudo"


def test_a_ready_board_has_no_fault(machine) -> None:
    files = {layout.BOARD.python[1:]: ""}
    assert set(states(machine("aixboard ready", files, {CHECK: [0, json.dumps(FOUND)]})).values()) == {OK}


def test_a_newer_chip_takes_the_ordinary_driver(machine) -> None:
    rows = examined(machine("n100"))
    assert rows["gpu driver"] == Row("gpu driver", OK, "intel-opencl-icd 25.05.32567.17")
    assert "no AVX" not in rows["cpu"].seen


def test_a_driver_that_no_longer_knows_an_older_chip_is_told(machine) -> None:
    row = examined(machine("laptop"))["gpu driver"]
    assert (row.state, row.seen) == (WARNING, "intel-opencl-icd 25.18.33578.6-1 no longer knows Gen9: CPU only")
    assert "intel-opencl-icd-legacy1" in row.mend


@pytest.mark.parametrize(
    ("version", "state"), [("22.43.24595.41-1", OK), ("24.35.30872.21", OK), ("24.35.30872.22", WARNING)]
)
def test_the_version_decides_whether_the_ordinary_driver_knows_the_board(machine, version, state) -> None:
    status = f"Package: intel-opencl-icd\nStatus: install ok installed\nVersion: {version}\n"
    assert states(machine("aixboard ready", {"var/lib/dpkg/status": status}))["gpu driver"] == state


def test_a_removed_driver_does_not_count(machine) -> None:
    status = "Package: intel-opencl-icd\nStatus: deinstall ok config-files\nVersion: 22.43\n"
    row = examined(machine("aixboard ready", {"var/lib/dpkg/status": status}))["gpu driver"]
    assert row.seen == "no OpenCL driver: CPU only"


def test_graphics_without_a_device_node_are_told(machine) -> None:
    system = machine("aixboard ready")
    (Path(system.root) / "dev/dri/renderD128").unlink()
    assert "no /dev/dri/renderD*" in examined(system)["gpu"].seen


def test_a_laptop_is_hot_slow_and_another_program_holds_its_camera(machine) -> None:
    rows = examined(machine("laptop"))
    assert rows["camera"].seen.endswith("held by cheese (process 412)")
    assert rows["camera"].mend == "kill 412"
    assert rows["governor"].state == rows["temperature"].state == rows["disk"].state == WARNING


def test_the_service_may_hold_the_camera(machine) -> None:
    files = {"proc/412/cmdline": "/var/lib/deepfake-edge/current/runtime/bin/python edge-detect"}
    assert states(machine("laptop", files))["camera"] == OK


@pytest.mark.parametrize("feeder", [7, 4711])
def test_a_virtual_camera_may_be_open_to_its_feeder_beside_the_service(machine, feeder) -> None:
    files = {
        "proc/412/cmdline": "/var/lib/deepfake-edge/current/runtime/bin/python edge-detect",
        f"proc/{feeder}/comm": "ffmpeg",
        f"proc/{feeder}/cmdline": "ffmpeg -i faces.mp4 -f v4l2 /dev/video0",
        f"proc/{feeder}/fd/3": "-> /dev/video0",
    }
    assert states(machine("laptop", files))["camera"] == OK


def test_a_camera_that_may_not_be_opened_is_not_missing(machine) -> None:
    commands = {"camera-formats /dev/video0": [126, ""]}
    row = examined(machine("aixboard ready", commands=commands))["camera"]
    assert (row.state, row.seen) == (WARNING, "/dev/video0: you may not open it")
    assert row.mend == "sudo usermod -aG video $USER   (then log in again)"


def test_root_sees_that_nobody_holds_a_camera(machine) -> None:
    row = examined(machine("aixboard ready", commands={"id -u": [0, "0"]}))["camera"]
    assert row.seen == "/dev/video0 HD Pro Webcam C920 (YUYV, MJPG)"


def test_a_device_that_may_not_be_opened_is_told_from_one_that_is_no_camera(tmp_path) -> None:
    device = tmp_path / "video0"
    device.write_text("")
    assert System().camera_formats(str(device)) is None
    device.chmod(0)
    with as_an_ordinary_user(), pytest.raises(PermissionError):
        System().camera_formats(str(device))


@contextlib.contextmanager
def as_an_ordinary_user():
    """Give up root's rights, where the tests have them, for a while."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_virtual_board_lacks_a_camera_and_the_runtime_only(machine) -> None:
    rows = examined(machine("virtual board"))
    assert {name for name, row in rows.items() if row.state != OK} == {"camera", "runtime"}


def test_a_container_without_devices_is_told_so(machine) -> None:
    rows = examined(machine("container"))
    assert "no /dev here" in rows["camera"].seen
    assert rows["memory"].state == rows["system"].state == WARNING
    assert rows["python"].state == FAULT


def test_of_many_formats_those_that_matter_come_first(machine) -> None:
    commands = {"camera-formats /dev/video0": [0, "GREY RGB3 BGR3 YUYV HSV4 MJPG"]}
    row = examined(machine("aixboard ready", commands=commands))["camera"]
    assert "(YUYV, MJPG, GREY, RGB3 and 2 more)" in row.seen


@pytest.mark.parametrize(
    "said", ["python: No module named edge_runtime", "ModuleNotFoundError: No module named 'edge_runtime'"]
)
def test_a_python_without_the_runtime_is_told_how_to_get_it(machine, said) -> None:
    system = machine("aixboard ready", {layout.BOARD.python[1:]: ""}, {CHECK: [1, said]})
    assert doctor.check_runtime(system) == [
        Row("runtime", WARNING, "not installed", "sudo python3 setup-board.pyz install --kit kit.tar")
    ]


def test_a_cpu_without_sse42_is_a_fault(machine) -> None:
    old = {"proc/cpuinfo": "processor : 0\nmodel name : Old\nflags : fpu sse2\n"}
    assert states(machine("virtual board", old))["cpu"] == FAULT


def test_a_clock_in_the_past_is_told(machine) -> None:
    row = doctor.check_clock(machine("aixboard ready"), now=0.0)
    assert row.state == WARNING
    assert row.seen.startswith("1970-01-01 00:00 UTC is in the past")


@pytest.mark.parametrize(
    ("code", "out", "state", "seen"),
    [
        (132, "", FAULT, "SIGILL"),
        (124, "", FAULT, "longer than"),
        (1, "Traceback\nValueError: odd", FAULT, "ValueError: odd"),
        (2, json.dumps({**FOUND, "error": "model.bin was changed"}), FAULT, "model.bin was changed"),
    ],
)
def test_a_runtime_that_fails_its_check_is_explained(machine, code, out, state, seen) -> None:
    system = machine("aixboard ready", {layout.BOARD.python[1:]: ""}, {CHECK: [code, out]})
    row = doctor.check_runtime(system)[-1]
    assert row.state == state
    assert seen in row.seen
    assert row.mend


@pytest.mark.parametrize(("faces", "state"), [(False, WARNING), (True, OK)])
def test_a_bundle_without_a_face_model_is_told_before_its_service_ends_again_and_again(machine, faces, state) -> None:
    out = json.dumps({**FOUND, "faces": faces})
    rows = doctor.check_runtime(machine("aixboard ready", {layout.BOARD.python[1:]: ""}, {CHECK: [0, out]}))
    assert rows[-1].state == state
    assert ("--face-model" in rows[-1].mend) is not faces


@pytest.mark.parametrize(
    ("version", "state"), [("2025.4.1", OK), ("2026.4.1", OK), ("2026.5.0", FAULT), ("2025.3.0", FAULT)]
)
def test_openvino_outside_the_pin_is_a_fault(machine, version, state) -> None:
    answer = json.dumps({**FOUND, "openvino": version})
    system = machine("aixboard ready", {layout.BOARD.python[1:]: ""}, {CHECK: [0, answer]})
    assert doctor.check_runtime(system)[0].state == state


INSTALLED = {layout.BOARD.python[1:]: "", layout.BOARD.command[1:]: ""}
"""What a kit leaves behind."""


@pytest.mark.parametrize(
    ("code", "out"),
    [
        (0, json.dumps({**FOUND, "openvino": "2026.5.0"})),
        (2, json.dumps({**FOUND, "error": "model.bin was changed"})),
        (1, "python: No module named edge_runtime"),
        (1, "ImportError: libopenvino.so: file too short"),
    ],
)
def test_what_a_kit_brought_is_mended_by_the_kit(machine, code, out) -> None:
    rows = doctor.check_runtime(machine("aixboard ready", INSTALLED, {CHECK: [code, out]}))
    assert [row.mend for row in rows if row.state != OK] == ["sudo setup-board install --kit kit.tar"]


def test_before_a_kit_is_installed_the_tool_is_called_by_its_file(machine) -> None:
    rows = examined(machine("aixboard ready"))
    assert rows["runtime"].mend == "sudo python3 setup-board.pyz install --kit kit.tar"


def test_a_wheel_built_for_avx_is_looked_for_where_the_twin_is(machine) -> None:
    mend = doctor.check_runtime(machine("aixboard ready", INSTALLED, {CHECK: [132, ""]}))[0].mend
    command = mend.split("   ")[0].split()
    assert command[:3] == ["setup-board", "twin", "--"]
    assert twin.resolve(command[3:])[0] == str(Path(sys.executable).with_name("python"))


def test_the_pin_is_the_projects_own() -> None:
    found = re.search(r'"openvino>=(\d+)\.(\d+),<(\d+)\.(\d+)"', (ROOT / "pyproject.toml").read_text())
    assert found is not None
    numbers = tuple(map(int, found.groups()))
    assert (numbers[:2], numbers[2:]) == (layout.OPENVINO_FROM, layout.OPENVINO_BELOW)


def test_a_stopped_service_is_a_fault(machine) -> None:
    files = {"etc/systemd/system/deepfake-edge.service": ""}
    system = machine("aixboard ready", files, {"systemctl is-active deepfake-edge.service": [3, "failed"]})
    assert doctor.check_service(system)[0].state == FAULT


def test_a_service_without_a_camera_waits_for_one(machine) -> None:
    files = {"etc/systemd/system/deepfake-edge.service": ""}
    system = machine("virtual board", files, {"systemctl is-active deepfake-edge.service": [3, "activating"]})
    assert doctor.check_service(system)[0] == Row("service", WARNING, "waits for a camera", "plug one in")


@pytest.mark.parametrize("worst", STATES)
def test_the_exit_code_is_that_of_the_worst_row(worst) -> None:
    rows = [Row("a", OK, ""), Row("b", worst, ""), Row("c", OK, "")]
    assert doctor.exit_code(rows) == STATES.index(worst)


def test_this_machine_is_examined_by_the_command_and_told_as_json(tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "board_setup.cli", "doctor", "--json", "--model", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    told = json.loads(done.stdout)
    assert told["worst"] == STATES[done.returncode] == FAULT
    bundle = next(row for row in told["rows"] if row["name"] == "bundle")
    assert bundle["seen"].startswith(f"{tmp_path}: no bundle")


def test_python_3_8_runs_the_doctor(python38) -> None:
    done = subprocess.run([python38, "-m", "board_setup.cli", "doctor"], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == ""
    assert "not installed" in done.stdout


def test_nothing_is_written(machine) -> None:
    system = machine("laptop")

    def snapshot() -> dict[str, float]:
        return {path: os.lstat(path).st_mtime_ns for path in map(str, Path(system.root).rglob("*"))}

    before = snapshot()
    doctor.examine(system)
    assert snapshot() == before
