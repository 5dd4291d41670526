"""Taking away all that any installation brought."""

import contextlib
import os
import shutil
from typing import Callable, Dict, List, Sequence

from board_setup.board import commands, disk, service
from board_setup.board.layout import SERVICE, Layout


def undo(layout: Layout, *, say: Callable[[str], None], dry_run: bool = False) -> None:
    """Show the plan, then remove all that any installation brought, from wherever it was; repeatable."""
    for number, line in enumerate(_plan(layout) or ["nothing, none of it is here"], 1):
        say(f"{number}. {line}")
    if dry_run:
        return
    live = os.path.realpath(layout.root) == "/" and bool(service.systemd_version())
    if live and os.path.exists(service.UNIT_PATH):
        commands.call(["systemctl", "disable", "--now", SERVICE])
    _remove_files(layout, live)
    _remove_command(layout)
    for user, groups in _groups(layout).items():
        for group in groups:
            commands.call(["gpasswd", "--delete", user, group])
    packages = _packages(layout)
    if packages:
        commands.run(["dpkg", "--purge", *packages])
    # Without that note nothing was begun, and no folder is this tool's.
    _remove_run_time(layout, disk.read_json(os.path.join(layout.state, "before.json"), parents(layout)))
    # What was noted for this goes last, so that it may be cut off anywhere too.
    for folder in (layout.programs, layout.state):
        if os.path.isdir(folder):
            shutil.rmtree(folder)
    os.sync()
    say("nothing of it is left")


def _plan(layout: Layout) -> List[str]:
    files = map(layout.at, (service.UNIT_PATH, service.RULE_PATH, service.JOURNALD_PATH))
    written = map(layout.at, service.WRITTEN_AT_RUN_TIME)
    ours = [layout.command] if _is_ours(layout.command, layout) else []
    paths = filter(os.path.lexists, [*files, *ours, *written, layout.programs, layout.state])
    return [
        *(f"remove {path}" for path in paths),
        *(f"take {user} out of {', '.join(groups)}" for user, groups in _groups(layout).items() if groups),
        *(f"remove the package {name}" for name in _packages(layout)),
    ]


def _remove_files(layout: Layout, live: bool) -> None:
    for path, after in (
        (service.UNIT_PATH, [["systemctl", "daemon-reload"], ["systemctl", "reset-failed", SERVICE]]),
        (
            service.RULE_PATH,
            [["udevadm", "control", "--reload"], ["udevadm", "trigger", "--subsystem-match=video4linux"]],
        ),
        (service.JOURNALD_PATH, [["systemctl", "restart", "systemd-journald"]]),
    ):
        if _remove(layout.at(path)) and live:
            for command in after:
                commands.call(command)


def _remove(path: str) -> bool:
    """Remove a file, and what a power cut left of writing it; says whether it was there."""
    there = os.path.lexists(path)
    for name in (path, path + disk.SCRATCH):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
    return there


def _remove_command(layout: Layout) -> None:
    """Remove the tool's command, not one of that name that was there before."""
    for path in (layout.command, layout.command + disk.SCRATCH):
        if _is_ours(path, layout):
            os.unlink(path)


def _is_ours(path: str, layout: Layout) -> bool:
    return os.path.islink(path) and os.readlink(path) == layout.tool


def _groups(layout: Layout) -> Dict[str, List[str]]:
    added: Dict[str, List[str]] = disk.read_json(groups_note(layout), {})
    return added


def groups_note(layout: Layout) -> str:
    """Return the file that notes which groups each user was added to."""
    return os.path.join(layout.state, "groups.json")


def _packages(layout: Layout) -> List[str]:
    brought: List[str] = disk.read_json(os.path.join(layout.state, "debs.json"), {"brought": []})["brought"]
    return brought


def _remove_run_time(layout: Layout, before: Sequence[str]) -> None:
    for path in map(layout.at, service.WRITTEN_AT_RUN_TIME):
        folder, name = os.path.split(path)
        shutil.rmtree(os.path.join(folder, "private", name), ignore_errors=True)
        if os.path.islink(path):
            os.unlink(path)
        shutil.rmtree(path, ignore_errors=True)
    for folder in parents(layout):
        if folder not in before:
            with contextlib.suppress(OSError):
                os.rmdir(folder)


def parents(layout: Layout) -> List[str]:
    """Return the folders that an installation may make beside its own."""
    return [
        os.path.dirname(layout.at(service.JOURNALD_PATH)),
        layout.at("/var/cache/private"),
        layout.at("/var/log/private"),
        os.path.dirname(layout.at(service.RULE_PATH)),
        os.path.dirname(layout.command),
    ]
