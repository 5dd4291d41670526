"""Installing a kit, step by step, each checked before and after, so that a power cut costs only the step it hit.

Nothing is switched before the new version has passed its own check on this board, and a version that does not run
makes room for the last good one again.
"""

import contextlib
import grp
import json
import os
import re
import shutil
import subprocess
import tarfile
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence

from board_setup import kit as kits
from board_setup import service
from board_setup.kit import Kit, KitError
from board_setup.layout import SERVICE, Layout

UNIT_PATH = "/etc/systemd/system/" + SERVICE
RULE_PATH = "/etc/udev/rules.d/70-deepfake-edge.rules"
JOURNALD_PATH = "/etc/systemd/journald.conf.d/deepfake-edge.conf"
WRITTEN_AT_RUN_TIME = ("/var/cache/deepfake-edge", "/var/log/deepfake-edge")
GROUPS = ("video", "render")
KEPT_VERSIONS = 3
COMPLETE = ".complete"
STARTING_S = 240.0
STEADY_S = 6.0

IMPORT_ALL = """
import contextlib, importlib, pkgutil
import edge_runtime
for module in pkgutil.walk_packages(edge_runtime.__path__, "edge_runtime.", onerror=lambda name: None):
    with contextlib.suppress(Exception):
        importlib.import_module(module.name)
"""

FILTER = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
"""Python 3.8 knows no filters but in its last updates; a kit's files were checked before."""


def tell(line: str) -> None:
    """Print a line at once, so that a log shows how far an installation came."""
    print(line, flush=True)


class InstallError(Exception):
    """A step that could not be done; what was done before it stays, and the same command goes on from there."""


class Step(NamedTuple):
    """A step of the installation."""

    name: str
    what: str
    done: Callable[[], bool]
    do: Callable[[], None]


class Installer:
    """Installs one kit below a root; with another root than `/` no system service is touched.

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
        self.systemd = _systemd_version() if self.live else 0

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
        if self.live and self.systemd:
            for name, what, path, text, reload in self._files():
                steps.append(self._file_step(name, f"{what}: {path}", path, text, reload))
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
        except (OSError, KitError, tarfile.TarError) as error:
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
        return os.path.isdir(self._unpacked_kit) or (self._runtime_done() and self._version_done())

    def _unpack(self) -> None:
        partial = _emptied(self._unpacked_kit + kits.SCRATCH)
        kits.unpack(self.kit_path, partial)
        os.sync()
        shutil.copy(os.path.join(partial, kits.TOOL), self.layout.tool)
        os.rename(partial, self._unpacked_kit)

    def _python_what(self) -> str:
        if self.kit.archive:
            return f"bring {os.path.basename(self.kit.archive)}"
        return f"use this board's Python {self.kit.python}"

    def _python(self) -> str:
        """Return the Python that the runtime is made with, empty where there is none."""
        if self.kit.archive:
            path = os.path.join(self._own_python, "bin", "python" + self.kit.python)
            return path if os.path.exists(os.path.join(self._own_python, COMPLETE)) else ""
        return shutil.which("python" + self.kit.python) or ""

    def _python_done(self) -> bool:
        return bool(self._python())

    def _bring_python(self) -> None:
        if not self.kit.archive:
            raise InstallError(
                f"python: the kit is for Python {self.kit.python}, which is not here; "
                "pack it with --python-version of this board, or with --python ARCHIVE"
            )
        partial = _emptied(self._own_python + kits.SCRATCH)
        with tarfile.open(os.path.join(self._unpacked_kit, self.kit.archive)) as tar:
            tar.extractall(partial, **FILTER)  # type: ignore[arg-type]
        shutil.rmtree(self._own_python, ignore_errors=True)
        os.rename(os.path.join(partial, "python"), self._own_python)
        shutil.rmtree(partial)
        _complete(self._own_python)

    def _debs_done(self) -> bool:
        return self._runtime_done() and os.path.exists(os.path.join(self.layout.state, "debs.json"))

    def _install_debs(self) -> None:
        folder = os.path.join(self._unpacked_kit, "debs")
        packages = sorted(os.path.join(folder, name) for name in os.listdir(folder))
        names = [_output(["dpkg-deb", "--field", package, "Package"]) for package in packages]
        new = [name for name in names if not _succeeds(["dpkg-query", "--status", name])]
        # Written first, so that what a power cut leaves half installed is still removed by --undo.
        _write(os.path.join(self.layout.state, "debs.json"), json.dumps(new))
        _run(["dpkg", "--install", *packages])

    def _runtime_done(self) -> bool:
        return os.path.exists(os.path.join(self._runtime, COMPLETE))

    def _make_runtime(self) -> None:
        wheels = os.path.join(self._unpacked_kit, "wheels")
        os.makedirs(self.layout.runtimes, exist_ok=True)
        shutil.rmtree(self._runtime, ignore_errors=True)
        make_environment(self._python(), self._runtime, wheels, self.kit.requirement)
        _complete(self._runtime)

    def _version_done(self) -> bool:
        return os.path.isdir(self.version)

    def _make_version(self) -> None:
        partial = _emptied(self.version + kits.SCRATCH)
        kits.take_bundle(os.path.join(self._unpacked_kit, "bundle"), partial, ())
        os.symlink(self._runtime, os.path.join(partial, "runtime"))
        os.sync()
        os.rename(partial, self.version)

    def _checked(self) -> bool:
        return any(entry["id"] == self.kit.id and entry["good"] for entry in history(self.layout))

    def _check(self) -> None:
        command = [os.path.join(self.version, "runtime", "bin", "python"), "-I", "-B", "-m", "edge_runtime.check"]
        done = _call([*command, "--model", self.version])
        if done.returncode:
            shutil.rmtree(self.version)
            raise InstallError(f"check: the new version fails on this board and was not switched to: {_reason(done)}")
        _remember(self.layout, self.kit.id, good=True)

    def _missing_groups(self) -> List[str]:
        if not self.user:
            return []
        return [name for name in _existing_groups() if self.user not in grp.getgrnam(name).gr_mem]

    def _add_groups(self) -> None:
        groups = self._missing_groups()
        _write(os.path.join(self.layout.state, "groups.json"), json.dumps({"user": self.user, "groups": groups}))
        _run(["usermod", "-aG", ",".join(groups), str(self.user)])

    def _files(self) -> List[Any]:
        unit = service.unit(self.layout, groups=_existing_groups(), systemd=self.systemd)
        reload_rules = [["udevadm", "control", "--reload"], ["udevadm", "trigger", "--subsystem-match=video4linux"]]
        return [
            ("camera", "a name that stays", RULE_PATH, service.UDEV_RULE, reload_rules),
            ("journal", "limits", JOURNALD_PATH, service.JOURNALD, [["systemctl", "restart", "systemd-journald"]]),
            (
                "unit",
                "the service",
                UNIT_PATH,
                unit,
                [["systemctl", "daemon-reload"], ["systemctl", "enable", SERVICE]],
            ),
        ]

    def _file_step(self, name: str, what: str, path: str, text: str, commands: Sequence[Sequence[str]]) -> Step:
        def do() -> None:
            _write(path, text)
            for command in commands:
                _run(command)

        return Step(name, what, lambda: _text(path) == text and (name != "unit" or _enabled()), do)

    def _switched(self) -> bool:
        return os.path.realpath(self.layout.current) == os.path.realpath(self.version)

    def _switch(self) -> None:
        switch(self.layout, self.kit.id)

    def _running(self) -> bool:
        return _text(os.path.join(self.layout.state, "started")) == self.kit.id and is_healthy()

    def _start(self) -> None:
        problem = restart()
        if not problem:
            _write(os.path.join(self.layout.state, "started"), self.kit.id)
            return
        _remember(self.layout, self.kit.id, good=False)
        last = last_good(self.layout, other_than=self.kit.id)
        if last is None:
            raise InstallError(f"service: {problem}; there is no earlier version to return to")
        switch(self.layout, last)
        again = restart()
        raise InstallError(f"service: {problem}; returned to {last}{', which does not run either' if again else ''}")

    def _remember_before(self) -> None:
        """Keep which folders were there before, so that --undo leaves them, and them only."""
        path = os.path.join(self.layout.state, "before.json")
        if not os.path.exists(path):
            found = [folder for folder in _parents() if os.path.isdir(folder)]
            _write(path, json.dumps(found))

    def _tidy(self) -> None:
        shutil.rmtree(os.path.join(self.layout.programs, "kits"), ignore_errors=True)
        keep = {self.kit.id, *(entry["id"] for entry in history(self.layout) if entry["good"])}
        kept = sorted(keep, key=lambda name: _installed_at(self.layout, name))[-KEPT_VERSIONS:]
        for name in os.listdir(self.layout.versions):
            if name not in kept and name != self.kit.id:
                shutil.rmtree(os.path.join(self.layout.versions, name))
        used = {os.path.realpath(os.path.join(self.layout.versions, name, "runtime")) for name in kept}
        for name in os.listdir(self.layout.runtimes):
            path = os.path.join(self.layout.runtimes, name)
            if os.path.realpath(path) not in used:
                shutil.rmtree(path)


def make_environment(python: str, target: str, wheels: str, requirement: str) -> None:
    """Make a virtual environment with `requirement` from a folder of wheels, pip's own among them; no network.

    Only what the runtime imports is compiled, by importing it: a quarter of all that lies there.
    """
    pip = next(name for name in sorted(os.listdir(wheels)) if name.startswith("pip-"))
    _run([python, "-m", "venv", "--without-pip", target])
    own = os.path.join(target, "bin", "python")
    options = ["--no-index", "--find-links", wheels, "--no-cache-dir", "--no-compile", "--disable-pip-version-check"]
    _run([own, os.path.join(wheels, pip, "pip"), "install", "--quiet", *options, requirement])
    _call([own, "-I", "-c", IMPORT_ALL])


def undo(layout: Layout, *, say: Callable[[str], None] = tell) -> None:
    """Remove all that any installation brought, from wherever it was; repeatable."""
    live = os.path.realpath(layout.root) == "/"
    if live and _systemd_version():
        if os.path.exists(UNIT_PATH):
            say(f"stopping and removing {SERVICE}")
            _call(["systemctl", "disable", "--now", SERVICE])
        _remove_files()
    _undo_groups(layout, say)
    _undo_debs(layout, say)
    before = _json(os.path.join(layout.state, "before.json"), [])
    for folder in (layout.programs, layout.state):
        if os.path.isdir(folder):
            say(f"removing {folder}")
            shutil.rmtree(folder)
    if live:
        _remove_run_time(before)
    os.sync()
    say("nothing of it is left")


def _remove_files() -> None:
    for path, commands in (
        (UNIT_PATH, [["systemctl", "daemon-reload"], ["systemctl", "reset-failed", SERVICE]]),
        (RULE_PATH, [["udevadm", "control", "--reload"], ["udevadm", "trigger", "--subsystem-match=video4linux"]]),
        (JOURNALD_PATH, [["systemctl", "restart", "systemd-journald"]]),
    ):
        if os.path.exists(path):
            os.unlink(path)
            for command in commands:
                _call(command)


def _undo_groups(layout: Layout, say: Callable[[str], None]) -> None:
    added = _json(os.path.join(layout.state, "groups.json"), {"groups": []})
    for group in added["groups"]:
        say(f"taking {added['user']} out of {group}")
        _call(["gpasswd", "--delete", added["user"], group])


def _undo_debs(layout: Layout, say: Callable[[str], None]) -> None:
    packages = [name for name in _json(os.path.join(layout.state, "debs.json"), []) if name]
    if packages:
        say(f"removing {', '.join(packages)}")
        _run(["dpkg", "--purge", *packages])


def _remove_run_time(before: Sequence[str]) -> None:
    for path in WRITTEN_AT_RUN_TIME:
        folder, name = os.path.split(path)
        shutil.rmtree(os.path.join(folder, "private", name), ignore_errors=True)
        if os.path.islink(path):
            os.unlink(path)
        shutil.rmtree(path, ignore_errors=True)
    for folder in _parents():
        if folder not in before:
            with contextlib.suppress(OSError):
                os.rmdir(folder)


def _parents() -> List[str]:
    """Return the folders that an installation may make beside its own."""
    return [os.path.dirname(JOURNALD_PATH), "/var/cache/private", "/var/log/private", os.path.dirname(RULE_PATH)]


def switch(layout: Layout, version: str) -> None:
    """Make `version` the current one, by one rename.

    Raises:
        InstallError: there is no such version.
    """
    target = os.path.join(layout.versions, version)
    if not os.path.isdir(target):
        raise InstallError(f"{version}: no such version; say: setup-board versions")
    fresh = layout.current + kits.SCRATCH
    with contextlib.suppress(FileNotFoundError):
        os.unlink(fresh)
    os.symlink(target, fresh)
    os.replace(fresh, layout.current)
    os.sync()


def current_version(layout: Layout) -> str:
    """Return the version in use, empty where there is none."""
    return os.path.basename(os.path.realpath(layout.current)) if os.path.islink(layout.current) else ""


def history(layout: Layout) -> List[Dict[str, Any]]:
    """Return what was installed, oldest first: id, when, and whether it was good."""
    entries: List[Dict[str, Any]] = _json(os.path.join(layout.state, "history.json"), [])
    return entries


def last_good(layout: Layout, *, other_than: str) -> Optional[str]:
    """Return the newest version that was good and is still here."""
    for entry in reversed(history(layout)):
        present = os.path.isdir(os.path.join(layout.versions, entry["id"]))
        if entry["good"] and entry["id"] != other_than and present:
            return str(entry["id"])
    return None


def rollback(layout: Layout) -> str:
    """Return to the last good version before the current one; says which it is.

    Raises:
        InstallError: there is none, or it does not run.
    """
    now = current_version(layout)
    last = last_good(layout, other_than=now)
    if last is None:
        raise InstallError("there is no earlier good version; say: setup-board versions")
    switch(layout, last)
    if os.path.realpath(layout.root) == "/" and os.path.exists(UNIT_PATH):
        problem = restart()
        if problem:
            raise InstallError(f"returned to {last}, but {problem}")
        _write(os.path.join(layout.state, "started"), last)
    return last


def restart() -> str:
    """Restart the service; returns what is wrong with it, empty where it runs (or waits for a camera)."""
    _call(["systemctl", "reset-failed", SERVICE])
    _call(["systemctl", "restart", "--no-block", SERVICE])
    if not has_camera():
        return ""
    deadline = time.monotonic() + STARTING_S
    while time.monotonic() < deadline:
        time.sleep(1.0)
        state = _service_state()
        if state["ActiveState"] == "active" and _stays_active():
            return ""
        if state["ActiveState"] == "failed" or int(state["NRestarts"] or 0) > 1:
            return f"{SERVICE} does not stay up: {_last_words()}"
    return f"{SERVICE} was not ready after {STARTING_S:.0f} s: {_last_words()}"


def is_healthy() -> bool:
    """Say whether the service runs, or rightly waits for a camera."""
    return _service_state()["ActiveState"] == "active" or not has_camera()


def has_camera() -> bool:
    """Say whether this board has a camera now."""
    return bool([name for name in os.listdir("/dev") if re.match(r"video\d+$", name)])


def _stays_active() -> bool:
    before = _service_state()["NRestarts"]
    time.sleep(STEADY_S)
    state = _service_state()
    return state["ActiveState"] == "active" and state["NRestarts"] == before


def _service_state() -> Dict[str, str]:
    lines = _output(["systemctl", "show", SERVICE, "-p", "ActiveState", "-p", "NRestarts"]).splitlines()
    return {"ActiveState": "", "NRestarts": "0", **dict(line.split("=", 1) for line in lines if "=" in line)}


def _last_words() -> str:
    lines = _output(["journalctl", "-u", SERVICE, "-n", "20", "-o", "cat", "--no-pager"]).splitlines()
    told = [line for line in lines if "error" in line.lower()] or lines
    return told[-1].strip() if told else "it said nothing"


def _remember(layout: Layout, version: str, *, good: bool) -> None:
    entries = [entry for entry in history(layout) if entry["id"] != version]
    entries.append({"id": version, "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "good": good})
    _write(os.path.join(layout.state, "history.json"), json.dumps(entries, indent=1))


def _installed_at(layout: Layout, version: str) -> int:
    identifiers = [entry["id"] for entry in history(layout)]
    return identifiers.index(version) if version in identifiers else len(identifiers)


def _existing_groups() -> List[str]:
    known = {group.gr_name for group in grp.getgrall()}
    return [name for name in GROUPS if name in known]


def _systemd_version() -> int:
    """Return systemd's version, 0 where it does not run here."""
    if not os.path.isdir("/run/systemd/system"):
        return 0
    found = re.match(r"systemd (\d+)", _output(["systemctl", "--version"]))
    return int(found.group(1)) if found else 0


def _enabled() -> bool:
    return _succeeds(["systemctl", "is-enabled", "--quiet", SERVICE])


def _call(command: Sequence[str]) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "LC_ALL": "C"},
        cwd="/",
    )


def _run(command: Sequence[str]) -> None:
    done = _call(command)
    if done.returncode:
        raise InstallError(f"{os.path.basename(command[0])} ended with {done.returncode}: {_reason(done)}")


def _succeeds(command: Sequence[str]) -> bool:
    return _call(command).returncode == 0


def _output(command: Sequence[str]) -> str:
    return _call(command).stdout.decode(errors="replace").strip()


def _reason(done: "subprocess.CompletedProcess[bytes]") -> str:
    text = done.stdout.decode(errors="replace").strip()
    found = re.search(r'"error": "(.*)"', text)
    if found:
        return json.loads(f'"{found.group(1)}"')
    if done.returncode in (-4, 132):
        return "it used an instruction that this CPU does not have (SIGILL)"
    return text.splitlines()[-1] if text else f"exit code {done.returncode}"


def _complete(folder: str) -> None:
    """Mark a folder as whole, after all of it has reached the disk."""
    os.sync()
    _write(os.path.join(folder, COMPLETE), "")


def _emptied(folder: str) -> str:
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    return folder


def _write(path: str, text: str) -> None:
    """Write a file whole or not at all, also when the power goes."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path + kits.SCRATCH, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + kits.SCRATCH, path)


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""


def _json(path: str, default: Any) -> Any:
    text = _text(path)
    return json.loads(text) if text else default


def print_status(layout: Layout) -> int:
    """Print the version in use and how the service is doing; returns 0 where it is well, 1 otherwise."""
    now = current_version(layout)
    print(f"version  {now or 'none'}")
    if os.path.realpath(layout.root) != "/" or not os.path.exists(UNIT_PATH):
        print("service  not installed")
        return 0 if now else 1
    state = _service_state()
    print(f"service  {state['ActiveState']}, {state['NRestarts']} restarts")
    print(f"         {_last_words()}")
    return 0 if is_healthy() else 1
