"""The versions on a board: which there are, which is current, and the way back."""

import json
import os
import shutil
import time
from typing import Any, Dict, List, Optional

from board_setup.board import disk, service
from board_setup.board.layout import Layout
from board_setup.errors import BoardError

KEPT = 3


class VersionError(BoardError):
    """A version that is not there or does not run."""


def switch(layout: Layout, version: str) -> None:
    """Make `version` the current one, by one rename, and remember which one it comes after.

    Raises:
        VersionError: there is no such version.
    """
    if not _is_here(layout, version):
        raise VersionError(f"{version}: no such version; say: setup-board versions")
    now = current_version(layout)
    way = [name for name in [*_before(layout, now), now] if name not in ("", version)]
    _make_current(layout, version, way)


def go_back(layout: Layout) -> Optional[str]:
    """Make the version that ran before the current one current again and return it; None where there is none.

    The one that is left is forgotten: no later way back leads to it.
    """
    way = _before(layout, current_version(layout))
    bad = {entry["id"] for entry in history(layout) if not entry["good"]}
    while way:
        version = way.pop()
        if version not in bad and _is_here(layout, version):
            _make_current(layout, version, way)
            return version
    return None


def _is_here(layout: Layout, version: str) -> bool:
    return os.path.isdir(os.path.join(layout.versions, version))


def _before(layout: Layout, version: str) -> List[str]:
    """Return the versions that were current before `version`, oldest first, without those that were left for good."""
    way: List[str] = disk.read_json(_way_path(layout), [])
    return way[: way.index(version)] if version in way else way


def _way_path(layout: Layout) -> str:
    return os.path.join(layout.state, "way.json")


def _make_current(layout: Layout, version: str, before: List[str]) -> None:
    # Written first: of a way that is ahead of the link, only what lies before the link's version counts.
    disk.write(_way_path(layout), json.dumps([*before, version]))
    disk.link(os.path.join(layout.versions, version), layout.current)
    os.sync()


def current_version(layout: Layout) -> str:
    """Return the version in use, empty where there is none."""
    return os.path.basename(os.path.realpath(layout.current)) if os.path.islink(layout.current) else ""


def history(layout: Layout) -> List[Dict[str, Any]]:
    """Return what was installed, oldest first: id, when, and whether it was good."""
    entries: List[Dict[str, Any]] = disk.read_json(os.path.join(layout.state, "history.json"), [])
    return entries


def remember(layout: Layout, version: str, *, good: bool) -> None:
    """Write down that a version was installed, and whether it is good."""
    entries = [entry for entry in history(layout) if entry["id"] != version]
    entries.append({"id": version, "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "good": good})
    disk.write(os.path.join(layout.state, "history.json"), json.dumps(entries, indent=1))


def tidy(layout: Layout) -> None:
    """Remove all but the current version and those to go back to, and the virtual environments that none uses."""
    now = current_version(layout)
    kept = {now, *_before(layout, now)[1 - KEPT :]}
    for name in os.listdir(layout.versions):
        if name not in kept:
            shutil.rmtree(os.path.join(layout.versions, name))
    used = {os.path.realpath(os.path.join(layout.versions, name, "runtime")) for name in kept}
    for name in os.listdir(layout.runtimes):
        path = os.path.join(layout.runtimes, name)
        if os.path.realpath(path) not in used:
            shutil.rmtree(path)


def rollback(layout: Layout) -> str:
    """Return to the good version that ran before the current one; says which it is.

    Raises:
        VersionError: there is none, or it does not run.
    """
    last = go_back(layout)
    if last is None:
        raise VersionError("there is no earlier good version; say: setup-board versions")
    if os.path.realpath(layout.root) == "/" and os.path.exists(service.UNIT_PATH):
        problem = service.restart()
        if problem:
            raise VersionError(f"returned to {last}, but {problem}")
        disk.write(os.path.join(layout.state, "started"), last)
    return last


def print_status(layout: Layout) -> int:
    """Print the version in use and how the service is doing; returns 0 where it is well, 1 otherwise."""
    now = current_version(layout)
    print(f"version  {now or 'none'}")
    if os.path.realpath(layout.root) != "/" or not os.path.exists(service.UNIT_PATH):
        print("service  not installed")
        return 0 if now else 1
    state = service.state()
    print(f"service  {state['ActiveState']}, {state['NRestarts']} restarts")
    print(f"         {service.last_words()}")
    return 0 if service.is_healthy() else 1
