"""The doctor: each row says what was seen and which command fixes it, and nothing is changed."""

import contextlib
import json
import os
import re
import sys
from pathlib import Path

import pytest

from board_setup import cli
from board_setup.board import doctor, layout
from board_setup.board.doctor import Row, State, System, camera, cpu, driver, linux, runtime
from board_setup.board.environment import NOT_INSTALLED_CODE, check_command
from board_setup.workstation import twin

ROOT = Path(__file__).resolve().parents[3]
NOVEMBER_2026 = 1_795_000_000
OK, WARNING, FAULT = State
CHECK = " ".join(check_command(layout.BOARD.python))
FOUND = {"openvino": "2026.4.1", "error": None, "bundle": "resnet50 1.0, int8", "answer": "int8 on CPU"}
PYTHON = {layout.BOARD.python[1:]: ""}
INSTALLED = {**PYTHON, layout.BOARD.command[1:]: ""}
"""What a kit installs."""


def examined(system: System) -> dict[str, Row]:
    return {row.name: row for row in doctor.examine(system, now=NOVEMBER_2026)}


def lacking(system: System) -> set[str]:
    return {name for name, row in examined(system).items() if row.state is not OK}


def test_board_as_delivered_lacks_python_driver_groups_runtime(machine) -> None:
    system = machine("aixboard as delivered")
    rows = examined(system)
    assert lacking(system) == {"python", "gpu driver", "groups", "runtime"}
    assert rows["cpu"].seen.startswith("Intel(R) Celeron(R) N5105 @ 2.00GHz, 4 cores, SSE4.2, no AVX: OpenVINO 2025.4")
    assert "pack --python" in rows["python"].fix
    assert "Ubuntu 22.04 or newer" in rows["gpu driver"].fix
    assert rows["groups"].fix.startswith("sudo usermod -aG video,render $USER")
    assert rows["camera"].seen.startswith("/dev/video0 HD Pro Webcam C920 (YUYV, MJPG); run with sudo")


def test_ready_board_lacks_nothing(machine) -> None:
    assert lacking(machine("aixboard ready", PYTHON, {CHECK: [0, json.dumps(FOUND)]})) == set()


def test_virtual_board_lacks_camera_and_runtime(machine) -> None:
    assert lacking(machine("virtual board")) == {"camera", "runtime"}


def test_container_has_no_devices(machine) -> None:
    rows = examined(machine("container"))
    assert "no /dev here" in rows["camera"].seen
    assert rows["memory"].state is rows["system"].state is WARNING
    assert rows["python"].state is FAULT


def test_laptop_is_hot_slow_and_full(machine) -> None:
    rows = examined(machine("laptop"))
    assert rows["governor"].state is rows["temperature"].state is rows["disk"].state is WARNING


def test_newer_chip_uses_ordinary_driver(machine) -> None:
    rows = examined(machine("n100"))
    assert rows["gpu driver"] == Row("gpu driver", OK, "intel-opencl-icd 25.05.32567.17")
    assert "no AVX" not in rows["cpu"].seen


@pytest.mark.parametrize(
    ("name", "version", "status", "state"),
    [
        ("aixboard ready", "22.43.24595.41-1", "install ok installed", OK),
        ("aixboard ready", "24.35.30872.21", "install ok installed", OK),
        ("aixboard ready", "24.35.30872.22", "install ok installed", WARNING),
        ("aixboard ready", "22.43", "deinstall ok config-files", WARNING),
        ("laptop", "25.18.33578.6-1", "install ok installed", WARNING),
    ],
)
def test_driver_version_decides_for_old_chips(machine, name, version, status, state) -> None:
    text = f"Package: intel-opencl-icd\nStatus: {status}\nVersion: {version}\n"
    row = driver.check_gpu(machine(name, {"var/lib/dpkg/status": text}))[1]
    assert row.state is state
    assert ("intel-opencl-icd" in row.fix) is (state is WARNING)


def test_graphics_without_device_node(machine) -> None:
    system = machine("aixboard ready")
    (Path(system.root) / "dev/dri/renderD128").unlink()
    assert "no /dev/dri/renderD*" in driver.check_gpu(system)[0].seen


SERVICE_PROCESS = "/var/lib/deepfake-edge/current/runtime/bin/python edge-detect"


@pytest.mark.parametrize(
    ("files", "state"),
    [
        ({}, WARNING),
        ({"proc/412/cmdline": SERVICE_PROCESS}, OK),
        ({"proc/412/cmdline": SERVICE_PROCESS, "proc/7/comm": "ffmpeg", "proc/7/fd/3": "-> /dev/video0"}, OK),
        ({"proc/412/cmdline": SERVICE_PROCESS, "proc/4711/comm": "ffmpeg", "proc/4711/fd/3": "-> /dev/video0"}, OK),
    ],
)
def test_only_the_service_may_use_the_camera(machine, files, state) -> None:
    row = camera.check_cameras(machine("laptop", files))[0]
    assert row.state is state
    assert (row.fix == "kill 412") is (state is WARNING)
    assert ("used by cheese (process 412)" in row.seen) is (state is WARNING)


@pytest.mark.parametrize(
    ("commands", "seen"),
    [
        ({"id -u": [0, "0"]}, "/dev/video0 HD Pro Webcam C920 (YUYV, MJPG)"),
        ({"camera-formats /dev/video0": [126, ""]}, "/dev/video0: no permission to open it"),
        (
            {"id -u": [0, "0"], "camera-formats /dev/video0": [0, "GREY RGB3 BGR3 YUYV HSV4 MJPG"]},
            "/dev/video0 HD Pro Webcam C920 (YUYV, MJPG, GREY, RGB3 and 2 more)",
        ),
    ],
)
def test_camera_row(machine, commands, seen) -> None:
    assert camera.check_cameras(machine("aixboard ready", commands=commands))[0].seen == seen


def test_forbidden_device_differs_from_no_camera(tmp_path) -> None:
    device = tmp_path / "video0"
    device.write_text("")
    assert System().camera_formats(str(device)) is None
    device.chmod(0)
    with as_ordinary_user(), pytest.raises(PermissionError):
        System().camera_formats(str(device))


@contextlib.contextmanager
def as_ordinary_user():
    """Give up root's rights for a while, if the tests have them."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_cpu_without_sse42_is_a_fault(machine) -> None:
    old = {"proc/cpuinfo": "processor : 0\nmodel name : Old\nflags : fpu sse2\n"}
    assert cpu.check_cpu(machine("virtual board", old)).state is FAULT


def test_clock_in_the_past(machine) -> None:
    row = linux.check_clock(machine("aixboard ready"), now=0.0)
    assert row.state is WARNING
    assert row.seen.startswith("1970-01-01 00:00 UTC is in the past")


@pytest.mark.parametrize(
    ("code", "out", "state", "seen"),
    [
        (132, "", FAULT, "SIGILL"),
        (124, "", FAULT, "longer than"),
        (1, "Traceback\nValueError: odd", FAULT, "ValueError: odd"),
        (2, json.dumps({**FOUND, "error": "model.bin was changed"}), FAULT, "model.bin was changed"),
        (2, json.dumps({**FOUND, "error": "none found", "state": "no bundle"}), FAULT, "none found"),
    ],
)
def test_failed_check_is_explained(machine, code, out, state, seen) -> None:
    row = runtime.check_runtime(machine("aixboard ready", PYTHON, {CHECK: [code, out]}))[-1]
    assert row.state is state
    assert seen in row.seen
    assert row.fix not in ("", CHECK)


@pytest.mark.parametrize(("faces", "state"), [(False, WARNING), (True, OK)])
def test_bundle_without_face_model_is_a_warning(machine, faces, state) -> None:
    rows = runtime.check_runtime(machine("aixboard ready", PYTHON, {CHECK: [0, json.dumps({**FOUND, "faces": faces})]}))
    assert rows[-1].state is state
    assert ("--face-model" in rows[-1].fix) is not faces


@pytest.mark.parametrize(
    ("version", "state"), [("2025.4.1", OK), ("2026.4.1", OK), ("2026.5.0", FAULT), ("2025.3.0", FAULT)]
)
def test_openvino_must_be_in_the_supported_range(machine, version, state) -> None:
    system = machine("aixboard ready", PYTHON, {CHECK: [0, json.dumps({**FOUND, "openvino": version})]})
    assert runtime.check_runtime(system)[0].state is state


@pytest.mark.parametrize(
    ("code", "out"),
    [
        (0, json.dumps({**FOUND, "openvino": "2026.5.0"})),
        (2, json.dumps({**FOUND, "error": "model.bin was changed"})),
        (NOT_INSTALLED_CODE, ""),
        (1, "ImportError: libopenvino.so: file too short"),
    ],
)
def test_kit_repairs_what_it_installed(machine, code, out) -> None:
    rows = runtime.check_runtime(machine("aixboard ready", INSTALLED, {CHECK: [code, out]}))
    assert [row.fix for row in rows if row.state is not OK] == ["sudo setup-board install --kit kit.tar"]


def test_tool_is_called_by_file_before_installation(machine) -> None:
    rows = runtime.check_runtime(machine("aixboard ready"))
    assert rows == [Row("runtime", WARNING, "not installed", "sudo python3 setup-board.pyz install --kit kit.tar")]


def test_twin_finds_the_avx_wheel(machine) -> None:
    fix = runtime.check_runtime(machine("aixboard ready", INSTALLED, {CHECK: [132, ""]}))[0].fix
    command = fix.split("   ")[0].split()
    assert command[:3] == ["setup-board", "twin", "--"]
    assert twin.resolve(command[3:])[0] == str(Path(sys.executable).with_name("python"))


def test_supported_range_is_the_projects() -> None:
    found = re.search(r'"openvino>=(\d+)\.(\d+),<(\d+)\.(\d+)"', (ROOT / "pyproject.toml").read_text())
    assert found is not None
    numbers = tuple(map(int, found.groups()))
    assert (numbers[:2], numbers[2:]) == (layout.OPENVINO_FROM, layout.OPENVINO_BELOW)


@pytest.mark.parametrize(
    ("name", "active", "state"),
    [
        ("aixboard ready", "active", OK),
        ("aixboard ready", "failed", FAULT),
        ("aixboard ready", "activating", FAULT),
        ("virtual board", "activating", WARNING),
    ],
)
def test_service_row(machine, name, active, state) -> None:
    commands = {"systemctl is-active deepfake-edge.service": [3, active]}
    system = machine(name, {"etc/systemd/system/deepfake-edge.service": ""}, commands)
    assert runtime.check_service(system).state is state


@pytest.mark.parametrize("worst", State)
def test_exit_code_is_that_of_the_worst_row(worst) -> None:
    rows = [Row("a", OK, ""), Row("b", worst, ""), Row("c", OK, "")]
    assert doctor.exit_code(rows) == list(State).index(worst)
    assert json.loads(doctor.as_json(rows))["worst"] == worst.value


def test_this_machine_as_json(tmp_path, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["doctor", "--json", "--model", str(tmp_path)])
    told = json.loads(capsys.readouterr().out)
    assert (told["worst"], ended.value.code) == ("fault", 2)
    bundle = next(row for row in told["rows"] if row["name"] == "bundle")
    assert str(tmp_path) in bundle["seen"]
    assert "edge_runtime.model.check" not in bundle["mend"]


def test_terminal_escapes_are_not_printed() -> None:
    assert "\x1b" not in doctor.as_text([Row("bundle", OK, "resnet50 \x1b[2J1.0", "\x1b[31m")])


def test_nothing_is_written(machine) -> None:
    system = machine("laptop")

    def snapshot() -> dict[str, float]:
        return {path: os.lstat(path).st_mtime_ns for path in map(str, Path(system.root).rglob("*"))}

    before = snapshot()
    doctor.examine(system)
    assert snapshot() == before
