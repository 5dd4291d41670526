"""Checks of the cameras, of who uses them, and of the groups that give access to them and the GPU."""

import os
from typing import Dict, List

from board_setup.board import layout
from board_setup.board.doctor.row import Row, State
from board_setup.board.doctor.system import System

SHOWN_FORMATS = 4
USEFUL_FORMATS = ("MJPG", "YUYV", "NV12")


def check_groups(system: System) -> Row:
    """Check the groups: cameras belong to `video`, the GPU to `render`."""
    groups = set(system.run(["id", "-nG"]).out.split())
    if "root" in groups:
        return Row("groups", State.OK, "root, who has access to cameras and GPU")
    wanted = ["video"] + (["render"] if system.glob("/dev/dri/renderD*") else [])
    missing = [group for group in wanted if group not in groups]
    if not missing:
        return Row("groups", State.OK, f"in {' and '.join(wanted)}")
    fix = f"sudo usermod -aG {','.join(missing)} $USER   (then log in again)"
    return Row("groups", State.WARNING, f"not in {' and '.join(missing)}", fix)


def check_cameras(system: System) -> List[Row]:
    """Check each camera: its formats, and which process uses it."""
    if not system.exists("/dev"):
        fix = "docker run --device /dev/video0 …"
        return [Row("camera", State.WARNING, "no /dev here: a container without devices", fix)]
    users = _find_users(system)
    is_root = system.run(["id", "-u"]).out == "0"
    rows, forbidden = [], []
    nodes = [path for path in system.glob("/dev/video*") if path[len("/dev/video") :].isdigit()]
    for path in sorted(nodes, key=lambda path: int(path[len("/dev/video") :])):
        try:
            formats = system.camera_formats(path)
        except PermissionError:
            forbidden.append(path)
            continue
        processes = users.get(path, [])
        if formats is None and not processes:
            continue
        name = system.read(f"/sys/class/video4linux/{os.path.basename(path)}/name") or "a camera"
        seen = f"{path} {name} ({_list_formats(formats or [])})"
        # The program that feeds a virtual camera has it open too.
        if any("deepfake-edge" in system.read(f"/proc/{process}/cmdline") for process in processes):
            rows.append(Row("camera", State.OK, f"{seen}, used by {layout.SERVICE}"))
        elif processes:
            user = system.read(f"/proc/{processes[0]}/comm") or "a program"
            seen += f", used by {user} (process {processes[0]})"
            rows.append(Row("camera", State.WARNING, seen, f"kill {processes[0]}"))
        else:
            hint = "" if is_root else "; run with sudo to see which program uses it"
            rows.append(Row("camera", State.OK, seen + hint))
    if forbidden:
        fix = "sudo usermod -aG video $USER   (then log in again)"
        rows.append(Row("camera", State.WARNING, f"{', '.join(forbidden)}: no permission to open it", fix))
    fix = "plug one in, then: ls -l /dev/video*; sudo dmesg | tail"
    return rows or [Row("camera", State.WARNING, "none found", fix)]


def _find_users(system: System) -> Dict[str, List[str]]:
    """Return the processes that have each camera open; all of them only as root."""
    users: Dict[str, List[str]] = {}
    for descriptor in system.glob("/proc/[0-9]*/fd/*"):
        target = system.link(descriptor)
        if target.startswith("/dev/video"):
            users.setdefault(target, []).append(descriptor.split("/")[2])
    return users


def _list_formats(formats: List[str]) -> str:
    """Return the most useful formats first, and how many more there are."""
    ordered = sorted(formats, key=lambda name: name not in USEFUL_FORMATS)
    more = len(ordered) - SHOWN_FORMATS
    return ", ".join(ordered[:SHOWN_FORMATS]) + (f" and {more} more" if more > 0 else "") or "formats unknown"
