"""The service on the board: its systemd unit, the udev rule, the journal's limits; starting it and reading its
status.
"""

import grp
import json
import os
import re
import time
from typing import Callable, List, NamedTuple, Optional, Sequence, Set

from board_setup.board import commands
from board_setup.board.layout import CAMERA, FORWARD, SERVICE, Layout
from board_setup.errors import BoardError

UNIT_PATH = "/etc/systemd/system/" + SERVICE
FORWARD_PATH = "/etc/systemd/system/" + FORWARD
RULE_PATH = "/etc/udev/rules.d/70-deepfake-edge.rules"
JOURNALD_PATH = "/etc/systemd/journald.conf.d/deepfake-edge.conf"
STATE = "/var/lib/deepfake-edge-state"
FORWARD_STATE = "/var/lib/deepfake-edge-forward"
CACHE = "/var/cache/deepfake-edge"
WRITTEN_AT_RUN_TIME = (CACHE, "/var/log/deepfake-edge", STATE, FORWARD_STATE)
MONITOR = STATE + "/monitor"
"""Where the service notes whether faces drift, see docs/operations.md."""

RESULTS = "/var/log/deepfake-edge/results.jsonl"
OPTIONS_FILE = "/etc/default/deepfake-edge"
SECRETS = "/etc/deepfake-edge/mqtt"
FORWARD_RUN = "/run/deepfake-edge-forward"
FORWARD_OPTIONS = "/etc/default/deepfake-edge-forward"
GROUPS = ("video", "render")
START_TIMEOUT_S = 330.0
"""Longer than the unit's TimeoutStartSec, so that systemd decides about a slow start."""
STEADY_S = 6.0
"""A service that was active this long without a restart counts as running."""
BACKOFF_FROM = 254
"""The first systemd with a growing delay between restarts."""

RELOAD_RULES = (
    ("udevadm", "control", "--reload"),
    ("udevadm", "trigger", "--subsystem-match=video4linux"),
)
RESTART_JOURNAL = (("systemctl", "restart", "systemd-journald"),)

UDEV_RULE = f"""# Gives the capture node of a camera a name that does not depend on the order of plugging in.
# 60-persistent-v4l.rules, which runs before, finds out what a node can do. With several cameras any may get the name.
SUBSYSTEM=="video4linux", KERNEL=="video[0-9]*", ATTR{{index}}=="0", ENV{{ID_V4L_CAPABILITIES}}=="*:capture:*", \
  SYMLINK+="{CAMERA[len("/dev/") :]}"
"""

JOURNALD = """# Few and bounded writes, to spare the eMMC.
[Journal]
SystemMaxUse=64M
RuntimeMaxUse=32M
SyncIntervalSec=15m
RateLimitIntervalSec=30s
RateLimitBurst=500
"""

HARDENING = """CapabilityBoundingSet=
AmbientCapabilities=
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
PrivateTmp=yes
DevicePolicy=closed
LockPersonality=yes
RemoveIPC=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM
"""

UNIT = """[Unit]
Description=Tells AI-generated faces from real ones at the camera
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
# To use other options, such as another camera, set DETECT_OPTIONS in the file below.
Environment="DETECT_OPTIONS=--camera {camera} --jsonl {results} --rotate 16M"
Environment=XDG_CACHE_HOME=/var/cache/deepfake-edge PYTHONDONTWRITEBYTECODE=1 HOME=/var/cache/deepfake-edge
Environment=DEEPFAKE_EDGE_MONITOR={monitor}
EnvironmentFile=-{options}
# One line per frame would fill the journal and hide a lost camera; the results file holds them all.
ExecStart={current}/runtime/bin/edge-detect --quiet $DETECT_OPTIONS
# A new bundle at {current} without a restart; one that fails its golden pictures is refused.
ExecReload=/bin/sh -c 'kill -HUP $MAINPID'
WorkingDirectory=/
TimeoutStartSec=5min
TimeoutStopSec=30
WatchdogSec=2min
Restart=always
{restart}

# A user that exists only while the service runs; the groups give access to camera and GPU.
DynamicUser=yes
SupplementaryGroups={groups}
CacheDirectory=deepfake-edge
LogsDirectory=deepfake-edge
StateDirectory=deepfake-edge-state
UMask=0027

MemoryHigh=700M
MemoryMax=900M
TasksMax=128
OOMPolicy=stop
Nice=-5

# MemoryDenyWriteExecute stays off: OpenVINO compiles its kernels at run time.
{hardening}PrivateNetwork=yes
IPAddressDeny=any
DeviceAllow=char-video4linux rw
DeviceAllow=char-drm rw
RestrictAddressFamilies=AF_UNIX
SystemCallFilter=sched_setaffinity mbind set_mempolicy

[Install]
WantedBy=multi-user.target
"""

FORWARD_UNIT = """[Unit]
Description=Sends the results of the camera's service to an MQTT broker
ConditionPathExists={options}
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
Environment=PYTHONDONTWRITEBYTECODE=1
# FORWARD_OPTIONS: the broker's address, and the other options of edge-forward.
EnvironmentFile={options}
# The secrets are root's; the service reads copies in its own folder, which is gone when it stops.
ExecStartPre=+/bin/sh -c 'for file in {secrets}/*; do [ ! -f "$$file" ] || \
  install -m 400 -o "$$(stat -c %%u {run}/)" "$$file" {run}/; done'
ExecStart={current}/runtime/bin/edge-forward --spool {results} $FORWARD_OPTIONS
WorkingDirectory={run}
Restart=always
RestartSec=30
WatchdogSec=2min

# The user of the camera's service, whose results only that user may read.
User={user}
DynamicUser=yes
LogsDirectory=deepfake-edge
StateDirectory=deepfake-edge-forward
RuntimeDirectory=deepfake-edge-forward
RuntimeDirectoryMode=0700
UMask=0077
MemoryMax=200M
TasksMax=32

{hardening}PrivateDevices=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX

[Install]
WantedBy=multi-user.target
"""


def unit(layout: Layout, *, groups: Sequence[str], systemd: int) -> str:
    """Return the service's unit.

    Args:
        layout: where the programs lie.
        groups: `video` and `render`, those that exist here; systemd refuses to start a service with an unknown one.
        systemd: its version.
    """
    backoff = "RestartSec=1\nRestartSteps=5\nRestartMaxDelaySec=30" if systemd >= BACKOFF_FROM else "RestartSec=5"
    return UNIT.format(
        camera=CAMERA,
        results=RESULTS,
        options=OPTIONS_FILE,
        monitor=MONITOR,
        current=layout.current,
        restart=backoff,
        groups=" ".join(groups),
        hardening=HARDENING,
    )


def forward_unit(layout: Layout) -> str:
    """Return the unit of the service beside it that sends results to a broker, once its options file is there."""
    return FORWARD_UNIT.format(
        options=FORWARD_OPTIONS,
        secrets=SECRETS,
        run=FORWARD_RUN,
        current=layout.current,
        results=RESULTS,
        user=SERVICE[: -len(".service")],
        hardening=HARDENING,
    )


class ServiceError(BoardError):
    """The service does not start or does not stay up."""


class Status(NamedTuple):
    """How systemd sees the service: its state, its restarts, and the id of its current or last run."""

    active: str
    restarts: int
    invocation: str

    @property
    def is_healthy(self) -> bool:
        """Whether it runs, or waits for a camera because there is none."""
        return self.active == "active" or not has_camera()


def status(output: Optional[Callable[[List[str]], str]] = None) -> Status:
    """Ask systemd for the service's status; `output` runs its command."""
    asked = ["ActiveState", "NRestarts", "InvocationID"]
    ask = output or commands.output
    lines = ask(["systemctl", "show", SERVICE, *(f"--property={name}" for name in asked)]).splitlines()
    found = dict(line.split("=", 1) for line in lines if "=" in line)
    restarts = found.get("NRestarts", "")
    return Status(
        active=found.get("ActiveState", ""),
        restarts=int(restarts) if restarts.isdigit() else 0,
        invocation=found.get("InvocationID", ""),
    )


def last_logged_line(invocations: Optional[Set[str]] = None) -> str:
    """Return the last line that the service printed, or with `invocations` the last one of these runs."""
    chosen = [f"_SYSTEMD_INVOCATION_ID={name}" for name in invocations or () if name]
    match = chosen or [f"_SYSTEMD_UNIT={SERVICE}"]
    lines = commands.output(["journalctl", "--quiet", "--lines=1", "--output=cat", "--no-pager", *match]).splitlines()
    if lines:
        return lines[-1].strip()
    return "it printed nothing" if os.geteuid() == 0 else "its last line is only shown with sudo"


def last_line_of(status: Status) -> str:
    """Return the last line of a running service's current run; of any run if it does not run."""
    return last_logged_line({status.invocation} if status.active == "active" else None)


def drift(layout: Layout) -> str:
    """Return what the monitor says about the faces at the camera: state, since when, and the reason."""
    path = layout.at(MONITOR + "/status.json")
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
        return f"{found['state']} since {found['since']}: {found['reason']}"
    except PermissionError:
        return "is only shown with sudo"
    except FileNotFoundError:
        return "nothing is monitored yet"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{path} can't be read ({error})"


def restart() -> None:
    """Restart the service and wait until it runs. On a board without a camera, where it can't start yet, return at
    once.

    Raises:
        ServiceError: it does not start or does not stay up; the message holds its last line.
    """
    before = status().invocation
    commands.call(["systemctl", "try-restart", "--no-block", FORWARD])
    commands.call(["systemctl", "reset-failed", SERVICE])
    commands.call(["systemctl", "restart", "--no-block", SERVICE])
    if not has_camera():
        return
    runs: Set[str] = set()
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        time.sleep(1.0)
        now = status()
        runs |= {now.invocation} - {before}
        if now.active == "active":
            time.sleep(STEADY_S)
            if status() == now:
                return
        elif now.active == "failed" or now.restarts > 1:
            raise ServiceError(f"{SERVICE} does not stay up: {last_logged_line(runs)}")
    raise ServiceError(f"{SERVICE} was not ready after {START_TIMEOUT_S:.0f} s: {last_logged_line(runs)}")


def has_camera() -> bool:
    """Return whether this board has a camera now."""
    return any(re.match(r"video\d+$", name) for name in os.listdir("/dev"))


def is_enabled(unit: str) -> bool:
    """Return whether systemd starts a unit at boot."""
    return commands.succeeds(["systemctl", "is-enabled", "--quiet", unit])


def systemd_version() -> int:
    """Return systemd's version, 0 if it does not run here."""
    if not os.path.isdir("/run/systemd/system"):
        return 0
    found = re.match(r"systemd (\d+)", commands.output(["systemctl", "--version"]))
    return int(found.group(1)) if found else 0


def existing_groups() -> List[str]:
    """Return those of the groups `video` and `render` that this machine has."""
    known = {group.gr_name for group in grp.getgrall()}
    return [name for name in GROUPS if name in known]
