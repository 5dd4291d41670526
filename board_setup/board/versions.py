"""The versions on a board: which are installed, which is current, and rolling back."""

import glob
import json
import os
import shutil
import time
from typing import Dict, List, NamedTuple, Optional

from board_setup.board import disk, service
from board_setup.board.layout import SERVICE, Layout
from board_setup.errors import BoardError

KEPT = 3

REMEDY = "delete it, then install the kit that should run here; it does not go back to earlier versions"


class VersionError(BoardError):
    """A version that is missing or does not run."""


class Entry(NamedTuple):
    """A version that was installed, when (UTC), whether it passed its check and ran, and who signed it, if anybody."""

    id: str
    when: str
    good: bool
    signer: str = ""


def switch(layout: Layout, version: str) -> None:
    """Make `version` the current one and record which version it follows.

    Raises:
        VersionError: there is no such version.
    """
    if not _is_installed(layout, version):
        raise VersionError(f"{version}: no such version; list them with: setup-board versions")
    now = current_version(layout)
    _make_current(layout, version, [name for name in [*_before(layout, now), now] if name not in ("", version)])


def go_back(layout: Layout) -> Optional[str]:
    """Return to the good version that ran before the current one; returns it, or None if there is none.

    The version that was rolled back is not offered again.
    """
    way = _before(layout, current_version(layout))
    bad = {entry.id for entry in history(layout) if not entry.good}
    while way:
        version = way.pop()
        if version not in bad and _is_installed(layout, version):
            _make_current(layout, version, way)
            return version
    return None


def rollback(layout: Layout) -> str:
    """Return to the good version that ran before the current one, restart the service, and return the version.

    Raises:
        VersionError: there is none.
        ServiceError: its service does not run.
        KeyboardInterrupt: with a message if that came after the switch, since the same command would go back once more.
    """
    os.umask(0o022)
    now = current_version(layout)
    try:
        last = go_back(layout)
        if last is None:
            raise VersionError("there is no earlier good version; list them with: setup-board versions")
        if layout.is_live and os.path.exists(service.UNIT_PATH):
            try:
                service.restart()
            except service.ServiceError as error:
                raise service.ServiceError(f"returned to {last}, but {error}") from None
            disk.write(layout.started, last)
    except KeyboardInterrupt:
        back = current_version(layout)
        if back == now:
            raise
        raise KeyboardInterrupt(
            f"stopped after it returned to {back}; run: sudo systemctl restart {SERVICE}, then: sudo setup-board status"
        ) from None
    return last


def _is_installed(layout: Layout, version: str) -> bool:
    return os.path.isdir(os.path.join(layout.versions, version))


def _before(layout: Layout, version: str) -> List[str]:
    """Return the versions that were current before `version`, oldest first, without those left by a rollback."""
    way: List[str] = disk.read_json(layout.state + "/way.json", [], [str], remedy=REMEDY)
    return way[: way.index(version)] if version in way else way


def _make_current(layout: Layout, version: str, before: List[str]) -> None:
    # Written before the link is switched: after a power cut in between, entries after the link's version do not count.
    disk.write(layout.state + "/way.json", json.dumps([*before, version]))
    disk.link(os.path.join(layout.versions, version), layout.current)
    os.sync()


def current_version(layout: Layout) -> str:
    """Return the version in use, empty if there is none."""
    return os.path.basename(os.path.realpath(layout.current)) if os.path.islink(layout.current) else ""


def history(layout: Layout) -> List[Entry]:
    """Return what was installed, oldest first.

    Raises:
        DamagedError: the record can't be read.
    """
    shape = [{"id": str, "when": str, "good": bool}]
    entries = disk.read_json(layout.state + "/history.json", [], shape, remedy=REMEDY)
    return [Entry(entry["id"], entry["when"], entry["good"], str(entry.get("signer", ""))) for entry in entries]


def describe_model(layout: Layout, version: str) -> str:
    """Return name, architecture and date of a version's model, as far as its bundle says."""
    try:
        manifest = json.loads(disk.read_text(os.path.join(layout.versions, version, "model.json")))
        name, date = str(manifest["name"]), str(manifest.get("created", ""))[:10]
        demo = ", demonstration model" if manifest["contract"].get("demo") else ""
        return f"{name} ({manifest['contract'].get('architecture', 'unknown architecture')}{demo}) {date}".rstrip()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "unreadable model.json"


def remember(layout: Layout, version: str, *, good: bool) -> None:
    """Record that a version was installed, and whether it is good."""
    former = history(layout)
    signer = next((entry.signer for entry in former if entry.id == version), "")
    now = Entry(version, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), good, signer)
    _write_history(layout, [*(entry for entry in former if entry.id != version), now])


def remember_signers(layout: Layout, signers: Dict[str, str]) -> None:
    """Record who signed installed versions, by version."""
    entries = history(layout)
    _write_history(layout, [entry._replace(signer=signers.get(entry.id, entry.signer)) for entry in entries])


def _write_history(layout: Layout, entries: List[Entry]) -> None:
    disk.write(layout.state + "/history.json", json.dumps([entry._asdict() for entry in entries], indent=1))


def runtime_links(layout: Layout) -> Dict[str, str]:
    """Return the path of each version's link to its virtual environment, and where it leads."""
    links = glob.glob(os.path.join(glob.escape(layout.versions), "*", "runtime"))
    return {link: os.path.realpath(link) for link in links}


def tidy(layout: Layout) -> None:
    """Keep the current version, those to go back to, and what they run with; remove the rest."""
    now = current_version(layout)
    kept = {now, *_before(layout, now)[1 - KEPT :]}
    for name in os.listdir(layout.versions):
        if name not in kept:
            shutil.rmtree(os.path.join(layout.versions, name))
    used = set(runtime_links(layout).values())
    for name in os.listdir(layout.runtimes):
        path = os.path.join(layout.runtimes, name)
        if os.path.realpath(path) not in used:
            shutil.rmtree(path)
    pythons = [os.path.realpath(os.path.join(path, "bin", "python")) for path in used]
    for path in glob.glob(os.path.join(glob.escape(layout.programs), "python-*")):
        if not any(python.startswith(os.path.realpath(path) + os.sep) for python in pythons):
            # Renamed first: what a power cut leaves of it must not look complete.
            os.rename(path, path + disk.PARTIAL)
            shutil.rmtree(path + disk.PARTIAL)
    # OpenVINO compiles each network into a file of its own. Those made before the oldest version are of removed ones;
    # another one is compiled again.
    oldest = min(os.stat(os.path.join(layout.versions, name)).st_mtime for name in os.listdir(layout.versions))
    for path in glob.glob(os.path.join(glob.escape(layout.at(service.CACHE)), "*.blob")):
        if os.stat(path).st_mtime < oldest:
            os.unlink(path)
