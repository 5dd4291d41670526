"""What systemd, udev and journald are told: a locked-up service, a camera name that stays, a journal with limits.

And how the service is started, watched and asked how it is.
"""

import grp
import os
import re
import time
from typing import Dict, List, Sequence

from board_setup.board import commands
from board_setup.board.layout import CAMERA, SERVICE, Layout

UNIT_PATH = "/etc/systemd/system/" + SERVICE
RULE_PATH = "/etc/udev/rules.d/70-deepfake-edge.rules"
JOURNALD_PATH = "/etc/systemd/journald.conf.d/deepfake-edge.conf"
WRITTEN_AT_RUN_TIME = ("/var/cache/deepfake-edge", "/var/log/deepfake-edge")
GROUPS = ("video", "render")
STARTING_S = 330.0
"""Longer than the unit's TimeoutStartSec: what starts slowly is for systemd to judge, once and not twice."""
STEADY_S = 6.0
RESULTS = "/var/log/deepfake-edge/results.jsonl"
OPTIONS_FILE = "/etc/default/deepfake-edge"
BACKOFF_FROM = 254
"""The first systemd that can wait longer from one restart to the next."""

UDEV_RULE = f"""# The node of a camera that gives pictures gets a name that does not depend on the order of plugging in.
# What a node can do is asked by 60-persistent-v4l.rules, which come before. Of several cameras any may get the name.
SUBSYSTEM=="video4linux", KERNEL=="video[0-9]*", ATTR{{index}}=="0", ENV{{ID_V4L_CAPABILITIES}}=="*:capture:*", \\
  SYMLINK+="{CAMERA[len("/dev/") :]}"
"""

JOURNALD = """# Written seldom and bounded, for the sake of the eMMC.
[Journal]
SystemMaxUse=64M
RuntimeMaxUse=32M
SyncIntervalSec=15m
RateLimitIntervalSec=30s
RateLimitBurst=500
"""

UNIT = """[Unit]
Description=Tells AI-generated faces from real ones at the camera
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
# Other options, such as another camera, go into the file as DETECT_OPTIONS="…".
Environment="DETECT_OPTIONS=--camera {camera} --jsonl {results} --rotate 16M"
Environment=XDG_CACHE_HOME=/var/cache/deepfake-edge PYTHONDONTWRITEBYTECODE=1 HOME=/var/cache/deepfake-edge
EnvironmentFile=-{options}
# A line a frame would fill the journal, and hide that a camera is lost; the results hold all.
ExecStart={current}/runtime/bin/edge-detect --quiet $DETECT_OPTIONS
WorkingDirectory=/
TimeoutStartSec=5min
TimeoutStopSec=30
WatchdogSec=2min
Restart=always
{restart}

# A user of its own, made for the time it runs; the groups give camera and GPU.
DynamicUser=yes
SupplementaryGroups={groups}
CacheDirectory=deepfake-edge
LogsDirectory=deepfake-edge
UMask=0027

MemoryHigh=700M
MemoryMax=900M
TasksMax=128
OOMPolicy=stop
Nice=-5

# MemoryDenyWriteExecute stays off: OpenVINO compiles its kernels at run time.
CapabilityBoundingSet=
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
PrivateNetwork=yes
IPAddressDeny=any
DevicePolicy=closed
DeviceAllow=char-video4linux rw
DeviceAllow=char-drm rw
LockPersonality=yes
RemoveIPC=yes
RestrictAddressFamilies=AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallFilter=sched_setaffinity mbind set_mempolicy
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""


def unit(layout: Layout, *, groups: Sequence[str], systemd: int) -> str:
    """Return the service's unit.

    Args:
        layout: where the programs lie.
        groups: those of `video` and `render` that this board has; systemd refuses to start with one that is missing.
        systemd: its version.
    """
    backoff = "RestartSec=1\nRestartSteps=5\nRestartMaxDelaySec=30" if systemd >= BACKOFF_FROM else "RestartSec=5"
    return UNIT.format(
        camera=CAMERA,
        results=RESULTS,
        options=OPTIONS_FILE,
        current=layout.current,
        restart=backoff,
        groups=" ".join(groups),
    )


def restart() -> str:
    """Restart the service; returns what is wrong with it, empty where it runs (or waits for a camera)."""
    commands.call(["systemctl", "reset-failed", SERVICE])
    commands.call(["systemctl", "restart", "--no-block", SERVICE])
    if not has_camera():
        return ""
    deadline = time.monotonic() + STARTING_S
    while time.monotonic() < deadline:
        time.sleep(1.0)
        now = state()
        if now["ActiveState"] == "active" and _stays_active():
            return ""
        if now["ActiveState"] == "failed" or int(now["NRestarts"] or 0) > 1:
            return f"{SERVICE} does not stay up: {last_words()}"
    return f"{SERVICE} was not ready after {STARTING_S:.0f} s: {last_words()}"


def is_healthy() -> bool:
    """Say whether the service runs, or rightly waits for a camera."""
    return state()["ActiveState"] == "active" or not has_camera()


def has_camera() -> bool:
    """Say whether this board has a camera now."""
    return bool([name for name in os.listdir("/dev") if re.match(r"video\d+$", name)])


def _stays_active() -> bool:
    before = state()["NRestarts"]
    time.sleep(STEADY_S)
    now = state()
    return now["ActiveState"] == "active" and now["NRestarts"] == before


def state() -> Dict[str, str]:
    """Return the service's ActiveState and NRestarts."""
    lines = commands.output(["systemctl", "show", SERVICE, "-p", "ActiveState", "-p", "NRestarts"]).splitlines()
    return {"ActiveState": "", "NRestarts": "0", **dict(line.split("=", 1) for line in lines if "=" in line)}


def last_words() -> str:
    """Return the last error that the service told, or its last line."""
    lines = commands.output(["journalctl", "-u", SERVICE, "-n", "20", "-o", "cat", "--no-pager"]).splitlines()
    told = [line for line in lines if "error" in line.lower()] or lines
    return told[-1].strip() if told else "it said nothing"


def is_enabled() -> bool:
    """Say whether systemd starts the service at boot."""
    return commands.succeeds(["systemctl", "is-enabled", "--quiet", SERVICE])


def systemd_version() -> int:
    """Return systemd's version, 0 where it does not run here."""
    if not os.path.isdir("/run/systemd/system"):
        return 0
    found = re.match(r"systemd (\d+)", commands.output(["systemctl", "--version"]))
    return int(found.group(1)) if found else 0


def existing_groups() -> List[str]:
    """Return those of the groups `video` and `render` that this machine has."""
    known = {group.gr_name for group in grp.getgrall()}
    return [name for name in GROUPS if name in known]
