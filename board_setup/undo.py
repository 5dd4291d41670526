"""Taking away all that any installation brought."""

import contextlib
import os
import shutil
from typing import Callable, List, Sequence

from board_setup import commands, disk, service
from board_setup.layout import SERVICE, Layout


def undo(layout: Layout, *, say: Callable[[str], None]) -> None:
    """Remove all that any installation brought, from wherever it was; repeatable."""
    live = os.path.realpath(layout.root) == "/" and bool(service.systemd_version())
    if live and os.path.exists(service.UNIT_PATH):
        say(f"stopping and removing {SERVICE}")
        commands.call(["systemctl", "disable", "--now", SERVICE])
    _remove_files(layout, live)
    _remove_command(layout)
    _undo_groups(layout, say)
    _undo_debs(layout, say)
    # Without that note nothing was begun, and no folder is this tool's.
    _remove_run_time(layout, disk.read_json(os.path.join(layout.state, "before.json"), parents(layout)))
    # What was noted for this goes last, so that it may be cut off anywhere too.
    for folder in (layout.programs, layout.state):
        if os.path.isdir(folder):
            say(f"removing {folder}")
            shutil.rmtree(folder)
    os.sync()
    say("nothing of it is left")


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
        if os.path.islink(path) and os.readlink(path) == layout.tool:
            os.unlink(path)


def _undo_groups(layout: Layout, say: Callable[[str], None]) -> None:
    for user, groups in disk.read_json(groups_note(layout), {}).items():
        for group in groups:
            say(f"taking {user} out of {group}")
            commands.call(["gpasswd", "--delete", user, group])


def groups_note(layout: Layout) -> str:
    """Return the file that notes which groups each user was added to."""
    return os.path.join(layout.state, "groups.json")


def _undo_debs(layout: Layout, say: Callable[[str], None]) -> None:
    packages = disk.read_json(os.path.join(layout.state, "debs.json"), {"brought": []})["brought"]
    if packages:
        say(f"removing {', '.join(packages)}")
        commands.run(["dpkg", "--purge", *packages])


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
