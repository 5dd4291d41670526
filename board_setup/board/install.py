"""Installing a kit, step by step, each checked before and after, so that a power cut costs only the step it hit.

Nothing is switched before the new version has passed its own check on this board, and a version that does not run
makes room for the last good one again.
"""

import contextlib
import grp
import json
import os
import shutil
import tarfile
from typing import Any, Callable, List, NamedTuple, Optional, Sequence

from board_setup.board import commands, disk, environment, service, undo, versions
from board_setup.board.layout import SERVICE, Layout
from board_setup.errors import BoardError
from board_setup.workstation import kit as kits
from board_setup.workstation.kit import Kit

BUNDLE = "bundle/"
"""Where a kit has the detector."""

FILTER = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
"""Python 3.8 knows no filters but in its last updates; a kit's files were checked before."""


class InstallError(BoardError):
    """A step that could not be done; what was done before it stays, and the same command goes on from there."""


def tell(line: str) -> None:
    """Print a line at once, so that a log shows how far an installation came."""
    print(line, flush=True)


class Step(NamedTuple):
    """A step of the installation."""

    name: str
    what: str
    done: Callable[[], bool]
    do: Callable[[], None]


class Installer:
    """Installs one kit below a root; with another root than `/` systemd, udev and groups are not told of it.

    Args:
        kit_path: the kit.
        layout: where to.
        user: who is to use camera and GPU too, besides the service; None for nobody.
        say: told a line a step.
    """

    def __init__(
        self, kit_path: str, layout: Layout, *, user: Optional[str] = None, say: Callable[[str], None] = tell
    ) -> None:
        self.kit_path, self.layout, self.user, self.say = os.path.abspath(kit_path), layout, user, say
        self.kit: Kit = kits.read_kit(kit_path)
        self.live = os.path.realpath(layout.root) == "/"
        self.systemd = service.systemd_version() if self.live else 0
        self._runtime_seen = False

    def steps(self) -> List[Step]:
        """Return the plan."""
        runtime = self.kit.requirement
        steps = [
            Step("kit", f"unpack {os.path.basename(self.kit_path)} and check every file", self._unpacked, self._unpack),
            Step("python", self._python_what(), self._python_done, self._bring_python),
            Step("runtime", f"a virtual environment with {runtime}", self._runtime_done, self._make_runtime),
            Step("detector", f"{self.version}", self._version_done, self._make_version),
            Step("check", "let the new version judge its golden pictures here", self._checked, self._check),
        ]
        if any(name.startswith("debs/") for name in self.kit.files):
            steps.insert(1, Step("driver", "install the kit's packages", self._debs_done, self._install_debs))
        if self.live and self._missing_groups():
            what = f"add {self.user} to {', '.join(self._missing_groups())}"
            steps.append(Step("groups", what, lambda: not self._missing_groups(), self._add_groups))
        if self.systemd or not self.live:
            for name, what, path, text, reload in self._files():
                steps.append(self._file_step(name, f"{what}: {path}", path, text, reload))
        what = f"this tool as a command: {self.layout.command}"
        steps.append(Step("command", what, self._is_command, self._make_command))
        steps.append(Step("switch", f"{self.layout.current} → {self.kit.id}", self._switched, self._switch))
        if self.live and self.systemd:
            steps.append(Step("service", f"start {SERVICE} and see that it runs", self._running, self._start))
        return steps

    def install(self, *, dry_run: bool = False) -> None:
        """Show the plan, then do what is not done yet.

        Raises:
            InstallError: a step failed.
        """
        steps = self.steps()
        for number, step in enumerate(steps, 1):
            self.say(f"{number}. {step.name}: {step.what}{' (already so)' if step.done() else ''}")
        if dry_run:
            return
        self._remember_before()
        for step in steps:
            self._go(step)
        self._tidy()
        self.say(f"{self.kit.id} is installed")

    def _go(self, step: Step) -> None:
        if step.done():
            return
        self.say(f"{step.name} …")
        try:
            step.do()
        except InstallError:
            raise
        except (OSError, BoardError, tarfile.TarError) as error:
            raise InstallError(f"{step.name}: {error}") from error
        # Before the next step builds on it, a power cut must not undo it.
        os.sync()
        if not step.done():
            raise InstallError(f"{step.name}: was done, but is not so; say: setup-board doctor")

    @property
    def version(self) -> str:
        """The folder of the version that is installed."""
        return os.path.join(self.layout.versions, self.kit.id)

    @property
    def _unpacked_kit(self) -> str:
        return os.path.join(self.layout.programs, "kits", self.kit.id)

    @property
    def _runtime(self) -> str:
        return os.path.join(self.layout.runtimes, self.kit.wheels_id)

    @property
    def _own_python(self) -> str:
        return os.path.join(self.layout.programs, "python-" + self.kit.files.get(self.kit.archive, "")[:8])

    def _unpacked(self) -> bool:
        made = (self._python_done, self._runtime_done, self._version_done, self._tool_done)
        return os.path.isdir(self._unpacked_kit) or all(done() for done in made)

    def _tool_done(self) -> bool:
        return disk.has_sha256(self.layout.tool, self.kit.files[kits.TOOL])

    def _unpack(self) -> None:
        partial = disk.emptied(self._unpacked_kit + disk.SCRATCH)
        kits.unpack(self.kit_path, partial)
        os.sync()
        disk.copy(os.path.join(partial, kits.TOOL), self.layout.tool, mode=0o755)
        os.rename(partial, self._unpacked_kit)

    def _python_what(self) -> str:
        if self.kit.archive:
            return f"bring {os.path.basename(self.kit.archive)}"
        return f"use this board's Python {self.kit.python}"

    def _python(self) -> str:
        """Return the Python that the runtime is made with, empty where there is none."""
        if self.kit.archive:
            path = os.path.join(self._own_python, "bin", "python" + self.kit.python)
            return path if os.path.exists(os.path.join(self._own_python, disk.COMPLETE)) else ""
        return shutil.which("python" + self.kit.python) or ""

    def _python_done(self) -> bool:
        return bool(self._python())

    def _bring_python(self) -> None:
        if not self.kit.archive:
            raise InstallError(
                f"python: the kit is for Python {self.kit.python}, which is not here; "
                "pack it with --python-version of this board, or with --python ARCHIVE"
            )
        partial = disk.emptied(self._own_python + disk.SCRATCH)
        with tarfile.open(os.path.join(self._unpacked_kit, self.kit.archive)) as tar:
            tar.extractall(partial, **FILTER)  # type: ignore[arg-type]
        shutil.rmtree(self._own_python, ignore_errors=True)
        os.rename(os.path.join(partial, "python"), self._own_python)
        shutil.rmtree(partial)
        disk.complete(self._own_python)

    @property
    def _debs_note(self) -> str:
        return os.path.join(self.layout.state, "debs.json")

    def _debs_done(self) -> bool:
        return bool(disk.read_json(self._debs_note, {}).get("kit") == self.kit.id)

    def _install_debs(self) -> None:
        folder = os.path.join(self._unpacked_kit, "debs")
        packages = sorted(os.path.join(folder, name) for name in os.listdir(folder))
        names = [commands.output(["dpkg-deb", "--field", package, "Package"]) for package in packages]
        new = [name for name in names if not commands.succeeds(["dpkg-query", "--status", name])]
        brought = sorted({*disk.read_json(self._debs_note, {"brought": []})["brought"], *new})
        # Written first, so that what a power cut leaves half installed is still removed by --undo.
        disk.write(self._debs_note, json.dumps({"brought": brought}))
        commands.run(["dpkg", "--install", *packages])
        disk.write(self._debs_note, json.dumps({"brought": brought, "kit": self.kit.id}))

    def _runtime_done(self) -> bool:
        # Some hundred megabytes are looked at once only.
        self._runtime_seen = self._runtime_seen or environment.is_whole(self._runtime)
        return self._runtime_seen

    def _make_runtime(self) -> None:
        self._mistrust()
        wheels = os.path.join(self._unpacked_kit, "wheels")
        os.makedirs(self.layout.runtimes, exist_ok=True)
        shutil.rmtree(self._runtime, ignore_errors=True)
        environment.make(self._python(), self._runtime, wheels, self.kit.requirement)
        environment.complete(self._runtime)

    def _version_done(self) -> bool:
        return not self._damaged() and self._has_runtime()

    def _damaged(self) -> List[str]:
        """Name the bundle's files that are not as the kit has them."""
        digests = {name[len(BUNDLE) :]: digest for name, digest in self.kit.files.items() if name.startswith(BUNDLE)}
        return [name for name in digests if not disk.has_sha256(os.path.join(self.version, name), digests[name])]

    def _has_runtime(self) -> bool:
        return os.path.realpath(os.path.join(self.version, "runtime")) == os.path.realpath(self._runtime)

    def _make_version(self) -> None:
        if os.path.isdir(self.version):
            self._repair_version()
            return
        partial = self.version + disk.SCRATCH
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(os.path.join(self._unpacked_kit, BUNDLE), partial)
        os.symlink(self._runtime, os.path.join(partial, "runtime"))
        os.sync()
        os.rename(partial, self.version)

    def _repair_version(self) -> None:
        """Bring back file by file what is not as the kit has it: the version may be in use."""
        self._mistrust()
        for name in self._damaged():
            disk.copy(os.path.join(self._unpacked_kit, BUNDLE, name), os.path.join(self.version, name))
        if not self._has_runtime():
            disk.link(self._runtime, os.path.join(self.version, "runtime"))

    def _mistrust(self) -> None:
        """Let what is about to be repaired be checked and started again."""
        if self._found_good():
            versions.remember(self.layout, self.kit.id, good=False)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._started_note)

    def _found_good(self) -> bool:
        return any(entry["id"] == self.kit.id and entry["good"] for entry in versions.history(self.layout))

    def _checked(self) -> bool:
        return self._found_good() and self._runtime_done() and self._version_done()

    def _check(self) -> None:
        command = [os.path.join(self.version, "runtime", "bin", "python"), "-I", "-B", "-m", "edge_runtime.model.check"]
        done = commands.call([*command, "--model", self.version])
        if done.returncode:
            # What is in use, and was repaired in vain, is still better than nothing.
            if not self._switched():
                shutil.rmtree(self.version)
            raise InstallError(
                f"check: the new version fails on this board and was not switched to: {commands.reason(done)}"
            )
        versions.remember(self.layout, self.kit.id, good=True)

    def _missing_groups(self) -> List[str]:
        if not self.user:
            return []
        return [name for name in service.existing_groups() if self.user not in grp.getgrnam(name).gr_mem]

    def _add_groups(self) -> None:
        groups = self._missing_groups()
        path = undo.groups_note(self.layout)
        added = disk.read_json(path, {})
        # Another installation may have been for another user; --undo takes them all out again.
        added[self.user] = sorted({*added.get(self.user, []), *groups})
        disk.write(path, json.dumps(added))
        commands.run(["usermod", "-aG", ",".join(groups), str(self.user)])

    def _files(self) -> List[Any]:
        unit = service.unit(self.layout, groups=service.existing_groups(), systemd=self.systemd)
        reload_rules = [["udevadm", "control", "--reload"], ["udevadm", "trigger", "--subsystem-match=video4linux"]]
        return [
            ("camera", "a name that stays", self.layout.at(service.RULE_PATH), service.UDEV_RULE, reload_rules),
            (
                "journal",
                "limits",
                self.layout.at(service.JOURNALD_PATH),
                service.JOURNALD,
                [["systemctl", "restart", "systemd-journald"]],
            ),
            (
                "unit",
                "the service",
                self.layout.at(service.UNIT_PATH),
                unit,
                [["systemctl", "daemon-reload"], ["systemctl", "enable", SERVICE]],
            ),
        ]

    def _file_step(self, name: str, what: str, path: str, text: str, after: Sequence[Sequence[str]]) -> Step:
        def do() -> None:
            disk.write(path, text)
            for command in after if self.live else ():
                commands.run(command)

        def done() -> bool:
            return disk.read_text(path) == text and (name != "unit" or not self.live or service.is_enabled())

        return Step(name, what, done, do)

    def _is_command(self) -> bool:
        # One that was there before is not this installation's to change.
        return os.path.lexists(self.layout.command)

    def _make_command(self) -> None:
        disk.link(self.layout.tool, self.layout.command)

    def _switched(self) -> bool:
        return os.path.realpath(self.layout.current) == os.path.realpath(self.version)

    def _switch(self) -> None:
        versions.switch(self.layout, self.kit.id)

    @property
    def _started_note(self) -> str:
        return os.path.join(self.layout.state, "started")

    def _running(self) -> bool:
        return disk.read_text(self._started_note) == self.kit.id and service.is_healthy()

    def _start(self) -> None:
        problem = service.restart()
        if not problem:
            disk.write(self._started_note, self.kit.id)
            return
        versions.remember(self.layout, self.kit.id, good=False)
        last = versions.go_back(self.layout)
        if last is None:
            raise InstallError(f"service: {problem}; there is no earlier version to return to")
        again = service.restart()
        if not again:
            disk.write(self._started_note, last)
        raise InstallError(f"service: {problem}; returned to {last}{', which does not run either' if again else ''}")

    def _remember_before(self) -> None:
        """Keep which folders were there before, so that --undo leaves them, and them only."""
        path = os.path.join(self.layout.state, "before.json")
        if not os.path.exists(path):
            found = [folder for folder in undo.parents(self.layout) if os.path.isdir(folder)]
            disk.write(path, json.dumps(found))

    def _tidy(self) -> None:
        shutil.rmtree(os.path.join(self.layout.programs, "kits"), ignore_errors=True)
        versions.tidy(self.layout)
