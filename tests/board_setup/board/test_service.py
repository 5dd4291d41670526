"""The service's unit: locked up, told of the groups that exist, and restarted with what this systemd knows."""

import configparser
import fnmatch
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from board_setup.board import service
from board_setup.board.layout import BOARD, CAMERA


def settings(text: str) -> dict[str, list[str]]:
    """Return the values of each setting, in order."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def test_it_runs_the_current_versions_detector_as_a_user_of_its_own() -> None:
    unit = settings(service.unit(BOARD, groups=["video", "render"], systemd=252))
    assert unit["ExecStart"] == ["/var/lib/deepfake-edge/current/runtime/bin/edge-detect --quiet $DETECT_OPTIONS"]
    assert unit["DynamicUser"] == unit["NoNewPrivileges"] == ["yes"]
    assert unit["SupplementaryGroups"] == ["video render"]
    assert unit["ProtectSystem"] == ["strict"]
    assert unit["Type"] == ["notify"]
    assert "WatchdogSec" in unit
    assert "MemoryMax" in unit


@pytest.mark.parametrize(("systemd", "known"), [(245, False), (252, False), (254, True)])
def test_a_backoff_is_asked_for_where_systemd_has_one(systemd: int, known: bool) -> None:
    unit = settings(service.unit(BOARD, groups=["video"], systemd=systemd))
    assert ("RestartSteps" in unit) is known
    assert "RestartSec" in unit


def test_its_default_options_are_understood_by_edge_detect() -> None:
    unit = settings(service.unit(BOARD, groups=[], systemd=252))
    options = next(value for value in unit["Environment"] if "DETECT_OPTIONS" in value)
    words = options.strip('"').removeprefix("DETECT_OPTIONS=").split()
    done = subprocess.run([Path(sys.executable).with_name("edge-detect"), "--help"], capture_output=True, text=True)
    assert all(word in done.stdout for word in words if word.startswith("--"))


def test_systemd_finds_nothing_to_say_against_it(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    path = tmp_path / "deepfake-edge.service"
    path.write_text(service.unit(BOARD, groups=["video"], systemd=252))
    command = ["systemd-analyze", "security", "--offline=yes", "--threshold=29", "--no-pager", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-300:]


def test_the_journals_limits_are_an_ini_file() -> None:
    parser = configparser.ConfigParser()
    parser.read_string(service.JOURNALD)
    assert parser["Journal"]["SystemMaxUse"] == "64M"


def rule() -> dict[str, str]:
    """Return what the udev rule asks for, and what it gives."""
    (line,) = (line for line in service.UDEV_RULE.replace("\\\n", "").splitlines() if not line.startswith("#"))
    parts = (re.fullmatch(r"(\S+?)(?:==|\+=)\"(.*)\"", part.strip()) for part in line.split(","))
    return {part[1]: part[2] for part in parts if part}


@pytest.mark.parametrize(
    ("node", "index", "capabilities", "named"),
    [
        ("video0", "0", ":capture:", True),
        ("video12", "0", ":capture:video_output:", True),
        ("video1", "1", ":capture:", False),
        ("video1", "0", ":video_output:", False),
        ("video1", "0", ":", False),
        ("vbi0", "0", ":capture:", False),
        ("radio0", "0", ":radio:", False),
    ],
)
def test_the_rule_names_the_first_node_of_a_camera(node, index, capabilities, named) -> None:
    asked = rule()
    assert asked.pop("SYMLINK") == CAMERA.removeprefix("/dev/")
    seen = {"SUBSYSTEM": "video4linux", "KERNEL": node, "ATTR{index}": index, "ENV{ID_V4L_CAPABILITIES}": capabilities}
    assert set(asked) == set(seen)
    assert all(fnmatch.fnmatchcase(seen[name], asked[name]) for name in seen) is named


def test_udev_has_asked_for_a_cameras_capabilities_before_the_rule_is_read() -> None:
    assert Path(service.RULE_PATH).name > "60-persistent-v4l.rules"
