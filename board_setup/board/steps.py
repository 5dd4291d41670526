"""The steps of an installation; each knows whether it is done and how to do it."""

import contextlib
import glob
import grp
import os
import shutil
import tarfile
import tempfile
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence

from board_setup.board import commands, disk, environment, kit, service, signing, undo, versions
from board_setup.board.layout import FORWARD, SERVICE, Layout
from board_setup.errors import BoardError

FILTER = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
"""Early updates of Python 3.8 have no extraction filters; the kit's files were checked before."""


class InstallError(BoardError):
    """A step failed; what was done before stays, and the same command continues from there."""


class Step(NamedTuple):
    """One step: its name, what it does, whether nothing is left to do, and doing it."""

    name: str
    what: str
    is_done: Callable[[], bool]
    do: Callable[[], None]


class Target:
    """What is installed where.

    Attributes:
        kit_path, kit: the kit.
        approval: who signed it.
        layout: the board's paths.
        live: whether this is the running system, so that systemd, udev and groups are changed too.
        systemd: its version, 0 if it does not run here.
        user: who gets access to camera and GPU besides the service; None for nobody.
        places: where the virtual environment may be: a damaged one that is in use is replaced at the other place.
        fastest: the device and precision that were measured to be fastest, empty if nothing was measured.
    """

    def __init__(self, kit_path: str, layout: Layout, user: Optional[str]) -> None:
        self.kit_path, self.layout, self.user = os.path.abspath(kit_path), layout, user
        head = kit.read_head(kit_path)
        self.approval = signing.approve(head, layout, kit_path)
        self.kit = kit.kit_of(head, kit_path)
        self.live = layout.is_live
        self.systemd = service.systemd_version() if self.live else 0
        self.unpacked = os.path.join(layout.programs, "kits", self.kit.id)
        self.own_python = os.path.join(layout.programs, "python-" + self.kit.files.get(self.kit.archive, "")[:8])
        self.version = os.path.join(layout.versions, self.kit.id)
        self.fastest = ""
        self._runtime = ""
        first = os.path.join(layout.runtimes, self.kit.wheels_id)
        self.places = [first, first + "-2"]

    @property
    def python(self) -> str:
        """Path of the Python that the runtime is made with, empty if it is missing."""
        if not self.kit.archive:
            return shutil.which("python" + self.kit.python) or ""
        complete = os.path.exists(os.path.join(self.own_python, disk.COMPLETE))
        return os.path.join(self.own_python, "bin", "python" + self.kit.python) if complete else ""

    def has_python(self) -> bool:
        """Return whether there is a Python to make the runtime with."""
        return bool(self.python)

    def has_tool(self) -> bool:
        """Return whether this tool is in place as the kit has it."""
        return disk.has_sha256(self.layout.tool, self.kit.files.get(kit.TOOL, ""))

    @property
    def runtime(self) -> str:
        """Path of the intact virtual environment, empty without one; its hundreds of megabytes are read only once."""
        self._runtime = self._runtime or next(filter(environment.is_intact, self.places), "")
        return self._runtime

    def links_to_damaged(self) -> List[str]:
        """Return the links of versions that lead to a damaged virtual environment with this kit's wheels."""
        damaged = {os.path.realpath(path) for path in self.places if path != self.runtime}
        return [link for link, path in versions.runtime_links(self.layout).items() if path in damaged]

    def damaged_files(self, folder: str) -> List[str]:
        """Return the bundle's files that are missing in a version's folder or differ from the kit."""
        names = [name[len(kit.BUNDLE) :] for name in self.kit.files if name.startswith(kit.BUNDLE)]
        digests = {name: self.kit.files[kit.BUNDLE + name] for name in names}
        return [name for name in names if not disk.has_sha256(os.path.join(folder, name), digests[name])]

    def has_version(self) -> bool:
        """Return whether the version's folder is as the kit has it and uses this runtime."""
        linked = os.path.realpath(os.path.join(self.version, "runtime")) == os.path.realpath(self.runtime)
        return bool(self.runtime) and linked and not self.damaged_files(self.version)

    def is_current(self) -> bool:
        """Return whether this version is the one in use."""
        return os.path.realpath(self.layout.current) == os.path.realpath(self.version)

    def found_good(self) -> bool:
        """Return whether this version passed its check here."""
        return any(entry.id == self.kit.id and entry.good for entry in versions.history(self.layout))

    def remove_partial(self) -> None:
        """Remove what a failed step left behind, which may be what filled the disk."""
        for path in (self.unpacked, self.own_python, self.version):
            shutil.rmtree(path + disk.PARTIAL, ignore_errors=True)
        used = versions.runtime_links(self.layout).values()
        for path in self.places:
            if not os.path.exists(os.path.join(path, disk.COMPLETE)) and os.path.realpath(path) not in used:
                shutil.rmtree(path, ignore_errors=True)

    def distrust(self) -> None:
        """Let this version be checked and started again after a repair."""
        if self.found_good():
            versions.remember(self.layout, self.kit.id, good=False)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.layout.started)


def unpack_kit(target: Target) -> Step:
    """Unpack and check the kit, and put this tool in place."""

    def is_done() -> bool:
        made = (target.has_python, lambda: target.runtime, target.has_version, target.has_tool)
        return os.path.isdir(target.unpacked) or all(done() for done in made)

    def do() -> None:
        partial = disk.empty_folder(target.unpacked + disk.PARTIAL)
        kit.unpack(target.kit_path, partial, target.kit)
        os.sync()
        disk.copy(os.path.join(partial, kit.TOOL), target.layout.tool, mode=0o755)
        os.rename(partial, target.unpacked)

    return Step("kit", f"unpack {os.path.basename(target.kit_path)} and check every file", is_done, do)


def install_packages(target: Target) -> Step:
    """Install the kit's Debian packages."""

    def is_done() -> bool:
        return undo.Records.read(target.layout).packages_of == target.kit.id

    def do() -> None:
        folder = os.path.join(target.unpacked, kit.DEBS)
        packages = sorted(os.path.join(folder, name) for name in os.listdir(folder))
        names = [commands.output(["dpkg-deb", "--field", package, "Package"]) for package in packages]
        new = [name for name in names if not commands.succeeds(["dpkg-query", "--status", name])]
        # Recorded first, so that undoing also removes what a power cut left half installed.
        undo.remember_packages(target.layout, new)
        commands.run(["dpkg", "--install", *packages])
        undo.remember_packages(target.layout, new, kit=target.kit.id)

    return Step("driver", "install the kit's Debian packages", is_done, do)


def provide_python(target: Target) -> Step:
    """Unpack the kit's standalone Python, or make sure that the board has the right one."""

    def do() -> None:
        if not target.kit.archive:
            raise InstallError(
                f"the kit is for Python {target.kit.python}, which is not installed here; "
                "pack it with --python-version of this board, or with --python ARCHIVE"
            )
        partial = disk.empty_folder(target.own_python + disk.PARTIAL)
        with tarfile.open(os.path.join(target.unpacked, target.kit.archive)) as tar:
            tar.extractall(partial, **FILTER)  # type: ignore[arg-type]
        shutil.rmtree(target.own_python, ignore_errors=True)
        os.rename(os.path.join(partial, "python"), target.own_python)
        shutil.rmtree(partial)
        os.sync()
        disk.write(os.path.join(target.own_python, disk.COMPLETE), "")

    archive = os.path.basename(target.kit.archive)
    what = f"install {archive}" if archive else f"use this board's Python {target.kit.python}"
    return Step("python", what, target.has_python, do)


def make_runtime(target: Target) -> Step:
    """Make the virtual environment; a damaged one stays until its replacement is complete, since it may be in use."""

    def is_done() -> bool:
        return bool(target.runtime) and not target.links_to_damaged()

    def do() -> None:
        if not target.runtime:
            wheels = os.path.join(target.unpacked, "wheels")
            used = versions.runtime_links(target.layout).values()
            place = next((path for path in target.places if os.path.realpath(path) not in used), target.places[-1])
            os.makedirs(target.layout.runtimes, exist_ok=True)
            shutil.rmtree(place, ignore_errors=True)
            environment.make(target.python, place, wheels, target.kit.requirement)
            target.distrust()
            environment.mark_complete(place)
        for link in target.links_to_damaged():
            disk.link(target.runtime, link)

    return Step("runtime", f"make a virtual environment with {target.kit.requirement}", is_done, do)


def copy_detector(target: Target) -> Step:
    """Copy the bundle into the version's folder, or repair it file by file, since it may be in use."""

    def do() -> None:
        bundle = os.path.join(target.unpacked, kit.BUNDLE)
        exists = os.path.isdir(target.version)
        if exists:
            target.distrust()
        folder = target.version if exists else disk.empty_folder(target.version + disk.PARTIAL)
        for name in target.damaged_files(folder):
            disk.copy(os.path.join(bundle, name), os.path.join(folder, name))
        disk.link(target.runtime, os.path.join(folder, "runtime"))
        if not exists:
            os.sync()
            os.rename(folder, target.version)

    return Step("detector", f"copy it to {target.version}", target.has_version, do)


def open_folders(target: Target) -> Step:
    """Let every user read what is installed: earlier versions of this tool installed it with the caller's umask."""

    def closed() -> Dict[str, int]:
        # Not what is in further folders of the state: somebody may keep private pictures there.
        layout = target.layout
        return disk.closed(layout.programs, layout.versions, layout.state + "/read", alone=layout.state)

    def do() -> None:
        for path, mode in closed().items():
            os.chmod(path, mode)

    return Step("access", "let the service read it", lambda: target.has_version() and not closed(), do)


def check_version(target: Target) -> Step:
    """Let the new version judge its golden pictures on this board."""

    def is_done() -> bool:
        return target.found_good() and target.has_version()

    def do() -> None:
        python = os.path.join(target.version, "runtime", "bin", "python")
        check = environment.run_check(python, target.version)
        if check.state is not environment.CheckState.PASSED:
            # A version that is in use and could not be repaired is still better than none.
            if not target.is_current():
                shutil.rmtree(target.version)
            raise InstallError(f"the new version fails on this board and was not switched to: {check.reason}")
        versions.remember(target.layout, target.kit.id, good=True)

    return Step("check", "let the new version judge its golden pictures here", is_done, do)


def measure_devices(target: Target) -> Step:
    """Find the fastest device, so that the service starts with it.

    A failure here costs only speed: the service then measures by itself.
    """

    def is_done() -> bool:
        return disk.read_text(target.layout.measured) == target.kit.id

    def do() -> None:
        python = os.path.join(target.version, "runtime", "bin", "python")
        with tempfile.TemporaryDirectory() as cache:
            folders = ["STATE_DIRECTORY=" + target.layout.state, "CACHE_DIRECTORY=" + cache]
            check = environment.run_check(python, target.version, "--measure", before=["env", *folders])
        why = f"not measured ({check.reason}); the service does it when it starts"
        target.fastest = check.found.get("fastest") or why
        disk.write(target.layout.measured, target.kit.id)

    return Step("measure", "find the fastest device and precision here", is_done, do)


def has_graphics(layout: Layout) -> bool:
    """Return whether the board has a graphics device that may compute."""
    return bool(glob.glob(layout.at("/dev/dri/renderD*")))


def add_groups(target: Target, user: str) -> Step:
    """Add the user to the groups that own cameras and GPU."""

    def missing() -> List[str]:
        return [name for name in service.existing_groups() if user not in grp.getgrnam(name).gr_mem]

    def do() -> None:
        groups = missing()
        undo.remember_groups(target.layout, user, groups)
        commands.run(["usermod", "-aG", ",".join(groups), user])

    return Step("groups", f"add {user} to {' and '.join(service.existing_groups())}", lambda: not missing(), do)


def write_file(
    target: Target, name: str, path: str, text: str, after: Sequence[Sequence[str]], *, unit: str = ""
) -> Step:
    """Write a configuration file and make the system read it with the commands `after`, which enable `unit`."""
    path = target.layout.at(path)
    was_read = os.path.join(target.layout.state, "read", name)

    def is_done() -> bool:
        is_active = not unit or not target.live or service.is_enabled(unit)
        return disk.read_text(path) == disk.read_text(was_read) == text and is_active

    def do() -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(was_read)
        disk.write(path, text)
        for command in after if target.live else ():
            commands.run(command)
        # Only now: one of the commands may fail, or the power.
        disk.write(was_read, text)

    return Step(name, f"write {path}", is_done, do)


def configure_system(target: Target) -> List[Step]:
    """Write what udev, journald and systemd read."""
    unit = service.unit(target.layout, groups=service.existing_groups(), systemd=target.systemd)
    forward = service.forward_unit(target.layout)
    enable, enable_forward = (
        (("systemctl", "daemon-reload"), ("systemctl", "enable", name)) for name in (SERVICE, FORWARD)
    )
    return [
        write_file(target, "camera", service.RULE_PATH, service.UDEV_RULE, service.RELOAD_RULES),
        write_file(target, "journal", service.JOURNALD_PATH, service.JOURNALD, service.RESTART_JOURNAL),
        write_file(target, "unit", service.UNIT_PATH, unit, enable, unit=SERVICE),
        write_file(target, "forward", service.FORWARD_PATH, forward, enable_forward, unit=FORWARD),
    ]


def link_command(target: Target) -> Step:
    """Put this tool on the PATH; another program of that name is left alone."""
    path = target.layout.command
    what, tool = f"link this tool as {path}", target.layout.tool
    return Step("command", what, lambda: os.path.lexists(path), lambda: disk.link(tool, path))


def switch_version(target: Target) -> Step:
    """Make the new version the current one."""
    what = f"{target.layout.current} → {target.kit.id}"
    return Step("switch", what, target.is_current, lambda: versions.switch(target.layout, target.kit.id))


def start_service(target: Target) -> Step:
    """Start the service; if it does not run, return to the last good version."""
    layout, new = target.layout, target.kit.id

    def is_done() -> bool:
        return disk.read_text(layout.started) == new and service.status().is_healthy

    def do() -> None:
        try:
            service.restart()
            disk.write(layout.started, new)
        except service.ServiceError as problem:
            versions.remember(layout, new, good=False)
            last = versions.go_back(layout)
            if last is None:
                raise InstallError(f"{problem}; there is no earlier version to return to") from None
            try:
                service.restart()
                disk.write(layout.started, last)
            except service.ServiceError:
                raise InstallError(f"{problem}; returned to {last}, which does not run either") from None
            raise InstallError(f"{problem}; returned to {last}") from None

    return Step("service", f"start {SERVICE} and see that it runs", is_done, do)
