"""What systemd, udev and journald are told: a locked-up service, a camera name that stays, a journal with limits."""

from typing import Sequence

from board_setup.layout import CAMERA, Layout

RESULTS = "/var/log/deepfake-edge/results.jsonl"
OPTIONS_FILE = "/etc/default/deepfake-edge"
BACKOFF_FROM = 254
"""The first systemd that can wait longer from one restart to the next."""

UDEV_RULE = f"""# A camera's first node gets a name that does not depend on the order of plugging in.
SUBSYSTEM=="video4linux", ATTR{{index}}=="0", SYMLINK+="{CAMERA[len("/dev/") :]}"
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
ExecStart={current}/runtime/bin/edge-detect $DETECT_OPTIONS
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
