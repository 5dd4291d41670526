"""The service: its unit, the udev rule, the journal's limits, and what is made of systemd's answers."""

import configparser
import fnmatch
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import typer

from board_setup.board import commands, service
from board_setup.board.layout import BOARD, CAMERA, SERVICE
from edge_runtime.cli import edge_detect
from edge_runtime.forward.cli import edge_forward


def settings(text: str) -> dict[str, list[str]]:
    """Return the values of each setting, in order."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def test_unit_runs_the_current_detector_as_dynamic_user() -> None:
    unit = settings(service.unit(BOARD, groups=["video", "render"], systemd=252))
    assert unit["ExecStart"] == ["/var/lib/deepfake-edge/current/runtime/bin/edge-detect --quiet $DETECT_OPTIONS"]
    assert unit["DynamicUser"] == unit["NoNewPrivileges"] == ["yes"]
    assert unit["SupplementaryGroups"] == ["video render"]
    assert unit["ProtectSystem"] == ["strict"]
    assert f"DEEPFAKE_EDGE_MONITOR={service.MONITOR}" in unit["Environment"]
    assert service.MONITOR.startswith(f"/var/lib/{unit['StateDirectory'][0]}/")
    assert unit["Type"] == ["notify"]
    assert {"WatchdogSec", "MemoryMax"} <= set(unit)


@pytest.mark.parametrize(("systemd", "known"), [(245, False), (252, False), (254, True)])
def test_backoff_only_if_systemd_has_it(systemd: int, known: bool) -> None:
    unit = settings(service.unit(BOARD, groups=["video"], systemd=systemd))
    assert ("RestartSteps" in unit) is known
    assert "RestartSec" in unit


def test_edge_detect_has_the_default_options() -> None:
    unit = settings(service.unit(BOARD, groups=[], systemd=252))
    options = next(value for value in unit["Environment"] if "DETECT_OPTIONS" in value)
    words = options.strip('"').removeprefix("DETECT_OPTIONS=").split()
    app = typer.Typer()
    app.command()(edge_detect)
    known = {name for parameter in typer.main.get_command(app).params for name in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


def web_unit() -> str:
    """Return the unit of edge-serve in the documentation."""
    blocks = (Path(__file__).resolve().parents[3] / "docs" / "deployment.md").read_text(encoding="utf-8").split("```")
    return next(block for block in blocks if "[Service]" in block).partition("\n")[2]


@pytest.mark.parametrize(
    "text",
    [service.unit(BOARD, groups=["video"], systemd=252), web_unit(), service.forward_unit(BOARD)],
    ids=["edge-detect", "edge-serve", "edge-forward"],
)
def test_systemd_rates_the_unit_as_safe(tmp_path: Path, text: str) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    path = tmp_path / "deepfake-edge.service"
    path.write_text(text)
    # Below 1.5 of 10.
    command = ["systemd-analyze", "security", "--offline=yes", "--threshold=15", "--no-pager", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-300:]


def test_the_camera_has_no_network_and_the_forwarder_no_camera() -> None:
    camera = settings(service.unit(BOARD, groups=["video"], systemd=252))
    forward = settings(service.forward_unit(BOARD))
    assert camera["PrivateNetwork"] == ["yes"]
    assert "PrivateNetwork" not in forward
    assert "DeviceAllow" not in forward
    assert forward["User"] == [SERVICE.removesuffix(".service")]
    assert forward["LogsDirectory"] == camera["LogsDirectory"]
    assert forward["ConditionPathExists"] == forward["EnvironmentFile"] == ["/etc/default/deepfake-edge-forward"]
    words = forward["ExecStart"][0].split()
    app = typer.Typer()
    app.command()(edge_forward)
    known = {name for parameter in typer.main.get_command(app).params for name in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


def test_secrets_are_copied_for_the_forwarder(tmp_path: Path) -> None:
    (tmp_path / "secrets/folder").mkdir(parents=True)
    (tmp_path / "run").mkdir()
    (tmp_path / "secrets/password").write_text("secret")
    text = service.forward_unit(BOARD).replace("\\\n", "")
    command = next(line for line in text.splitlines() if line.startswith("ExecStartPre=+/bin/sh -c "))
    script = command.partition("'")[2].rstrip("'").replace("$$", "$").replace("%%", "%")
    script = script.replace(service.SECRETS, str(tmp_path / "secrets")).replace(
        service.FORWARD_RUN, str(tmp_path / "run")
    )
    subprocess.run(["/bin/sh", "-c", script], check=True)
    (copy,) = (tmp_path / "run").iterdir()
    assert (copy.read_text(), copy.stat().st_mode & 0o777) == ("secret", 0o400)
    shutil.rmtree(tmp_path / "secrets")
    subprocess.run(["/bin/sh", "-c", script], check=True)


def test_journal_limits_are_an_ini_file() -> None:
    parser = configparser.ConfigParser()
    parser.read_string(service.JOURNALD)
    assert parser["Journal"]["SystemMaxUse"] == "64M"


def rule() -> dict[str, str]:
    """Return the conditions and assignments of the udev rule."""
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
def test_rule_names_the_capture_node(node, index, capabilities, named) -> None:
    asked = rule()
    assert asked.pop("SYMLINK") == CAMERA.removeprefix("/dev/")
    seen = {"SUBSYSTEM": "video4linux", "KERNEL": node, "ATTR{index}": index, "ENV{ID_V4L_CAPABILITIES}": capabilities}
    assert set(asked) == set(seen)
    assert all(fnmatch.fnmatchcase(seen[name], asked[name]) for name in seen) is named


def test_rule_runs_after_the_capabilities_are_known() -> None:
    assert Path(service.RULE_PATH).name > "60-persistent-v4l.rules"


def answers(monkeypatch, shown: list[str], camera: bool = True) -> list[list[str]]:
    """Let systemctl show these states one after the other; returns the commands that are run."""
    ran: list[list[str]] = []
    states = iter(shown)

    def output(command: list[str]) -> str:
        ran.append(list(command))
        return next(states) if command[0] == "systemctl" else "error: this version is broken"

    monkeypatch.setattr(commands, "output", output)
    monkeypatch.setattr(commands, "call", ran.append)
    monkeypatch.setattr(service, "has_camera", lambda: camera)
    monkeypatch.setattr(service.time, "sleep", lambda seconds: None)
    return ran


def shown(active: str, restarts: int, invocation: str) -> str:
    return f"ActiveState={active}\nNRestarts={restarts}\nInvocationID={invocation}"


def test_restart_waits_until_the_service_stays_up(monkeypatch) -> None:
    states = [shown("active", 0, "a"), shown("activating", 0, "b"), shown("active", 0, "b"), shown("active", 0, "b")]
    answers(monkeypatch, states)
    service.restart()


def test_restart_reports_the_new_runs_only(monkeypatch) -> None:
    states = [shown("active", 0, "a"), shown("activating", 0, "b"), shown("activating", 2, "c")]
    ran = answers(monkeypatch, states)
    with pytest.raises(service.ServiceError, match="does not stay up: error: this version is broken"):
        service.restart()
    assert set(ran[-1][-2:]) == {"_SYSTEMD_INVOCATION_ID=b", "_SYSTEMD_INVOCATION_ID=c"}


@pytest.mark.parametrize(
    ("active", "match"), [("active", "_SYSTEMD_INVOCATION_ID=b"), ("failed", f"_SYSTEMD_UNIT={SERVICE}")]
)
def test_running_service_reports_its_current_run(monkeypatch, active, match) -> None:
    ran = answers(monkeypatch, [])
    service.last_line_of(service.Status(active, 3, "b"))
    assert ran[-1][-1] == match


def test_restart_does_not_wait_for_a_camera(monkeypatch) -> None:
    answers(monkeypatch, [shown("activating", 0, "")], camera=False)
    service.restart()


@pytest.mark.parametrize(
    ("active", "camera", "healthy"), [("active", True, True), ("failed", True, False), ("activating", False, True)]
)
def test_service_without_camera_is_healthy(monkeypatch, active, camera, healthy) -> None:
    answers(monkeypatch, [shown(active, 0, "a")], camera)
    assert service.status().is_healthy is healthy
