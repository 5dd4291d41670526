"""Removing everything that installations added."""

import contextlib
import json
import os
import shutil
from typing import Callable, Dict, List, NamedTuple

from board_setup.board import commands, disk, service
from board_setup.board.layout import FORWARD, SERVICE, Layout

FILES = (
    (service.UNIT_PATH, (("systemctl", "daemon-reload"), ("systemctl", "reset-failed", SERVICE))),
    (service.FORWARD_PATH, (("systemctl", "daemon-reload"),)),
    (service.RULE_PATH, service.RELOAD_RULES),
    (service.JOURNALD_PATH, service.RESTART_JOURNAL),
)
"""The files that systemd, udev and journald read, and the commands that make them notice the removal."""


def undo(layout: Layout, *, say: Callable[[str], None], dry_run: bool = False) -> None:
    """Print the plan, then remove everything that installations added; may be repeated after a power cut.

    Raises:
        DamagedError: a record can't be read.
        CommandError: a package can't be removed.
    """
    records = Records.read(layout)
    for number, line in enumerate(plan(layout, records) or ["nothing is installed"], 1):
        say(f"{number}. {line}")
    own = (layout.at(path) for path in (service.OPTIONS_FILE, service.FORWARD_OPTIONS, service.SECRETS))
    for path in (*own, layout.trusted):
        if os.path.exists(path):
            say(f"your {path} is kept; delete it yourself if you no longer need it")
    if dry_run:
        return
    live = layout.is_live and bool(service.systemd_version())
    if live and os.path.exists(service.UNIT_PATH):
        commands.call(["systemctl", "disable", "--now", SERVICE, FORWARD])
    _remove_files(layout, live)
    for path in (layout.command, layout.command + disk.PARTIAL):
        if _is_ours(path, layout):
            os.unlink(path)
    for user, groups in records.groups.items():
        for group in groups:
            commands.call(["gpasswd", "--delete", user, group])
    if records.packages:
        commands.run(["dpkg", "--purge", *records.packages])
    _remove_folders(layout, records)
    os.sync()
    say("everything is removed")


def plan(layout: Layout, records: "Records") -> List[str]:
    """Return what undoing removes, a line each."""
    paths = [layout.at(path) for path, _ in FILES]
    paths += [layout.command] if _is_ours(layout.command, layout) else []
    paths += [*map(layout.at, service.WRITTEN_AT_RUN_TIME), layout.programs, layout.state]
    return [
        *(f"remove {path}" for path in paths if os.path.lexists(path)),
        *(f"remove {user} from {', '.join(groups)}" for user, groups in records.groups.items() if groups),
        *(f"remove the package {name}" for name in records.packages),
    ]


def _remove_files(layout: Layout, live: bool) -> None:
    """Remove the configuration files, and what a power cut left of writing them."""
    for path, reload in FILES:
        existed = os.path.lexists(layout.at(path))
        for name in (layout.at(path), layout.at(path) + disk.PARTIAL):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
        for command in reload if existed and live else ():
            commands.call(command)


def _remove_folders(layout: Layout, records: "Records") -> None:
    for path in map(layout.at, service.WRITTEN_AT_RUN_TIME):
        # systemd keeps the folders of a dynamic user below `private` and links to them.
        shutil.rmtree(os.path.join(os.path.dirname(path), "private", os.path.basename(path)), ignore_errors=True)
        if os.path.islink(path):
            os.unlink(path)
        shutil.rmtree(path, ignore_errors=True)
    for folder in shared_folders(layout):
        if folder not in records.folders_before:
            with contextlib.suppress(OSError):
                os.rmdir(folder)
    # The records go last, so that undoing can be interrupted anywhere and repeated.
    for folder in (layout.programs, layout.state):
        if os.path.isdir(folder):
            shutil.rmtree(folder)


def _is_ours(path: str, layout: Layout) -> bool:
    """Return whether the command is this tool's link, not another program of that name."""
    return os.path.islink(path) and os.readlink(path) == layout.tool


class Records(NamedTuple):
    """What the records say that installations changed outside their own folders.

    Attributes:
        groups: the groups that each user was added to.
        packages: the Debian packages that were installed.
        packages_of: the kit whose packages were installed last, empty if that did not finish.
        folders_before: those of `shared_folders` that existed before the first installation.
    """

    groups: Dict[str, List[str]]
    packages: List[str]
    packages_of: str
    folders_before: List[str]

    @classmethod
    def read(cls, layout: Layout) -> "Records":
        """Read the records.

        Raises:
            DamagedError: one of them can't be read.
        """
        packages = disk.read_json(layout.state + "/debs.json", {"brought": []}, {"brought": [str]})
        return cls(
            groups=disk.read_json(layout.state + "/groups.json", {}, {disk.ANY: [str]}),
            packages=packages["brought"],
            packages_of=str(packages.get("kit", "")),
            # Without this record no installation was begun, and no folder is this tool's.
            folders_before=disk.read_json(layout.state + "/before.json", shared_folders(layout), [str]),
        )


def remember_folders(layout: Layout) -> None:
    """Record which shared folders exist before the first installation, so that undoing keeps them."""
    path = layout.state + "/before.json"
    if not os.path.exists(path):
        disk.write(path, json.dumps([folder for folder in shared_folders(layout) if os.path.isdir(folder)]))


def remember_groups(layout: Layout, user: str, groups: List[str]) -> None:
    """Record that a user was added to groups; other users keep theirs."""
    added = Records.read(layout).groups
    added[user] = sorted({*added.get(user, []), *groups})
    disk.write(layout.state + "/groups.json", json.dumps(added))


def remember_packages(layout: Layout, packages: List[str], *, kit: str = "") -> None:
    """Record the Debian packages that were added, and the kit once they are installed."""
    brought = sorted({*Records.read(layout).packages, *packages})
    disk.write(layout.state + "/debs.json", json.dumps({"brought": brought, "kit": kit}))


def shared_folders(layout: Layout) -> List[str]:
    """Return the folders outside its own that an installation may create."""
    return [
        os.path.dirname(layout.at(service.JOURNALD_PATH)),
        layout.at("/var/cache/private"),
        layout.at("/var/log/private"),
        layout.at("/var/lib/private"),
        os.path.dirname(layout.at(service.RULE_PATH)),
        os.path.dirname(layout.command),
    ]
