"""Taking away all that any installation brought."""

import contextlib
import os
import shutil
from typing import Callable, List, Sequence

from board_setup import commands, disk, service
from board_setup.layout import SERVICE, Layout


def undo(layout: Layout, *, say: Callable[[str], None]) -> None:
    """Remove all that any installation brought, from wherever it was; repeatable."""
    live = os.path.realpath(layout.root) == "/"
    if live and service.systemd_version():
        if os.path.exists(service.UNIT_PATH):
            say(f"stopping and removing {SERVICE}")
            commands.call(["systemctl", "disable", "--now", SERVICE])
        _remove_files()
    _remove_command(layout)
    _undo_groups(layout, say)
    _undo_debs(layout, say)
    if live:
        _remove_run_time(disk.read_json(os.path.join(layout.state, "before.json"), []))
    # What was noted for this goes last, so that it may be cut off anywhere too.
    for folder in (layout.programs, layout.state):
        if os.path.isdir(folder):
            say(f"removing {folder}")
            shutil.rmtree(folder)
    os.sync()
    say("nothing of it is left")


def _remove_files() -> None:
    for path, after in (
        (service.UNIT_PATH, [["systemctl", "daemon-reload"], ["systemctl", "reset-failed", SERVICE]]),
        (
            service.RULE_PATH,
            [["udevadm", "control", "--reload"], ["udevadm", "trigger", "--subsystem-match=video4linux"]],
        ),
        (service.JOURNALD_PATH, [["systemctl", "restart", "systemd-journald"]]),
    ):
        if os.path.exists(path):
            os.unlink(path)
            for command in after:
                commands.call(command)


def _remove_command(layout: Layout) -> None:
    """Remove the tool's command, not one of that name that was there before."""
    if os.path.islink(layout.command) and os.readlink(layout.command) == layout.tool:
        os.unlink(layout.command)


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


def _remove_run_time(before: Sequence[str]) -> None:
    for path in service.WRITTEN_AT_RUN_TIME:
        folder, name = os.path.split(path)
        shutil.rmtree(os.path.join(folder, "private", name), ignore_errors=True)
        if os.path.islink(path):
            os.unlink(path)
        shutil.rmtree(path, ignore_errors=True)
    for folder in parents():
        if folder not in before:
            with contextlib.suppress(OSError):
                os.rmdir(folder)


def parents() -> List[str]:
    """Return the folders that an installation may make beside its own."""
    return [
        os.path.dirname(service.JOURNALD_PATH),
        "/var/cache/private",
        "/var/log/private",
        os.path.dirname(service.RULE_PATH),
    ]
