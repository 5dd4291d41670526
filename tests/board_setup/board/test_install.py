"""Installing: step by step, resumable from anywhere, never switching to what fails, and undone without a trace.

The kits here hold a small stand-in for the runtime, so that the way is quick; the virtual board installs the real one.
"""

import contextlib
import grp
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from board_setup.board import commands, environment, service, undo, versions
from board_setup.board.install import Installer, InstallError
from board_setup.board.layout import Layout
from board_setup.board.versions import VersionError
from board_setup.workstation import kit as kits

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture(scope="session")
def kit_folder(tmp_path_factory, make_kit) -> Path:
    folder = tmp_path_factory.mktemp("kits")
    make_kit(folder / "1.tar", "1")
    make_kit(folder / "2.tar", "2")
    make_kit(folder / "bad.tar", "3", "wrong")
    return folder


@pytest.fixture
def real_layout(tmp_path, monkeypatch) -> Layout:
    """A board where virtual environments are real."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    return Layout(str(tmp_path / "board"))


@pytest.fixture
def layout(real_layout, monkeypatch) -> Layout:
    """A board where a virtual environment is two scripts, for the sake of speed."""
    monkeypatch.setattr(environment, "make", quick_environment)
    return real_layout


def quick_environment(python: str, target: str, wheels: str, requirement: str) -> None:
    folder = Path(target) / "bin"
    with zipfile.ZipFile(next(Path(wheels).glob("deepfake_edge-*"))) as wheel:
        check = wheel.read("edge_runtime/model/check.py").decode()
    folder.mkdir(parents=True)
    (folder / "check.py").write_text(check)
    for name, script in (
        ("python", f'exec {sys.executable} {folder}/check.py "$@"'),
        ("edge-detect", "echo detecting"),
    ):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)


def put_in(kit: Path, layout: Layout) -> list[str]:
    said: list[str] = []
    Installer(str(kit), layout, say=said.append).install()
    return said


def tree(root: str) -> set[str]:
    return {str(path) for path in Path(root).rglob("*")}


def test_a_kit_becomes_the_current_version_whose_runtime_runs(kit_folder, real_layout) -> None:
    layout = real_layout
    said = put_in(kit_folder / "1.tar", layout)
    assert said[-1] == "1-aa is installed"
    assert versions.current_version(layout) == "1-aa"
    done = subprocess.run([layout.current + "/runtime/bin/edge-detect"], capture_output=True, text=True)
    assert done.stdout == "detecting\n"
    assert Path(layout.tool).read_bytes().startswith(b"#!/usr/bin/env python3")
    assert not (Path(layout.programs) / "kits").exists()


def test_the_same_again_does_nothing(kit_folder, layout) -> None:
    put_in(kit_folder / "1.tar", layout)
    before = {path: os.lstat(path).st_mtime_ns for path in tree(layout.versions)}
    said = put_in(kit_folder / "1.tar", layout)
    assert all("already so" in line for line in said[:-1])
    assert {path: os.lstat(path).st_mtime_ns for path in tree(layout.versions)} == before


def test_a_dry_run_shows_the_plan_and_writes_nothing(kit_folder, layout) -> None:
    said: list[str] = []
    Installer(str(kit_folder / "1.tar"), layout, say=said.append).install(dry_run=True)
    assert [line.split(":")[0].split(" ")[1] for line in said] == [
        "kit", "python", "runtime", "detector", "check", "camera", "journal", "unit", "command", "switch",
    ]  # fmt: skip
    assert not Path(layout.root).exists()


class PowerCutError(BaseException):
    """Nothing catches it, as nothing catches a power cut."""


def cut_power(monkeypatch, number: int) -> None:
    """Let the `number`th write that others build on be the last thing that happens."""
    count = iter(range(1000))

    def ending(function):
        def cut(*args, **options):
            if next(count) == number:
                raise PowerCutError
            return function(*args, **options)

        return cut

    for name in ("rename", "replace", "symlink", "sync"):
        monkeypatch.setattr(os, name, ending(getattr(os, name)))


@pytest.mark.parametrize("number", range(36))
def test_a_power_cut_anywhere_is_made_good_by_the_same_command(kit_folder, layout, number) -> None:
    with pytest.MonkeyPatch.context() as patched:
        cut_power(patched, number)
        try:
            put_in(kit_folder / "1.tar", layout)
        except PowerCutError:
            assert versions.current_version(layout) in ("", "1-aa")
    put_in(kit_folder / "1.tar", layout)
    assert versions.current_version(layout) == "1-aa"
    done = subprocess.run([layout.current + "/runtime/bin/edge-detect"], capture_output=True, text=True)
    assert done.stdout == "detecting\n"
    assert not [path for path in tree(layout.root) if path.endswith(kits.SCRATCH)]


def test_power_cuts_reach_every_step(kit_folder, layout, monkeypatch) -> None:
    cut_power(monkeypatch, 35)
    put_in(kit_folder / "1.tar", layout)


def test_what_was_damaged_of_the_detector_is_repaired_and_checked_again(kit_folder, layout) -> None:
    put_in(kit_folder / "1.tar", layout)
    golden = Path(layout.current, "golden", "golden.json")
    Path(layout.current, "runtime").unlink()
    golden.write_text("wrong")
    said = put_in(kit_folder / "1.tar", layout)
    assert [line for line in said if line.endswith("…")] == ["kit …", "detector …", "check …"]
    assert golden.read_text() == "right"
    assert Path(layout.current, "runtime", "bin", "edge-detect").exists()
    assert "already so" in put_in(kit_folder / "1.tar", layout)[0]


def test_what_was_damaged_is_started_again(kit_folder, layout) -> None:
    put_in(kit_folder / "1.tar", layout)
    started = Path(layout.state, "started")
    started.write_text("1-aa")
    put_in(kit_folder / "1.tar", layout)
    assert started.exists()
    Path(layout.current, "model.json").write_bytes(b"")
    put_in(kit_folder / "1.tar", layout)
    assert not started.exists()


@pytest.mark.parametrize("damage", ["a file", "another version"])
def test_what_was_damaged_of_the_runtime_is_repaired(kit_folder, real_layout, damage) -> None:
    layout = real_layout
    put_in(kit_folder / "1.tar", layout)
    (packages,) = Path(layout.runtimes).glob("*/lib/python*/site-packages")
    if damage == "a file":
        (packages / "edge_runtime" / "cli.py").write_text("")
    else:
        (packages / "deepfake_edge-0.1.0.dist-info").rename(packages / "deepfake_edge-9.dist-info")
    said = put_in(kit_folder / "1.tar", layout)
    assert [line for line in said if line.endswith("…")] == ["kit …", "runtime …", "check …"]
    done = subprocess.run([layout.current + "/runtime/bin/edge-detect"], capture_output=True, text=True)
    assert done.stdout == "detecting\n"


def test_what_was_damaged_of_the_tool_is_repaired(kit_folder, layout) -> None:
    put_in(kit_folder / "1.tar", layout)
    Path(layout.tool).write_bytes(b"")
    put_in(kit_folder / "1.tar", layout)
    done = subprocess.run([layout.command, "versions", "--root", layout.root], capture_output=True, text=True)
    assert done.stdout.startswith("* 1-aa")


def test_a_command_that_was_there_before_is_left(kit_folder, layout) -> None:
    Path(layout.command).parent.mkdir(parents=True)
    Path(layout.command).write_text("another")
    put_in(kit_folder / "1.tar", layout)
    undo.undo(layout, say=lambda line: None)
    assert Path(layout.command).read_text() == "another"


def test_a_version_that_fails_its_check_is_not_switched_to(kit_folder, layout) -> None:
    put_in(kit_folder / "1.tar", layout)
    with pytest.raises(InstallError, match="was not switched to: CPU int8: WRONG"):
        put_in(kit_folder / "bad.tar", layout)
    assert versions.current_version(layout) == "1-aa"
    assert not (Path(layout.versions) / "3-aa").exists()


def test_rollback_returns_to_the_version_before(kit_folder, layout) -> None:
    put_in(kit_folder / "1.tar", layout)
    put_in(kit_folder / "2.tar", layout)
    assert versions.current_version(layout) == "2-aa"
    assert versions.rollback(layout) == "1-aa"
    assert versions.current_version(layout) == "1-aa"


def fail_to_start(kit: Path, layout: Layout) -> str:
    """Switch to a version whose service does not stay up, as the last steps do; returns what is told."""
    installer = Installer(str(kit), layout, say=lambda line: None)
    installer.install()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(service, "restart", iter(["it does not stay up", ""]).__next__)
        with pytest.raises(InstallError) as caught:
            installer._start()
    return str(caught.value)


def test_rollback_said_again_goes_further_back(tmp_path, layout, make_kit) -> None:
    for number in "123":
        put_in(make_kit(tmp_path / "kit.tar", number), layout)
    assert [versions.rollback(layout) for _ in range(2)] == ["2-aa", "1-aa"]
    with pytest.raises(VersionError, match="no earlier good version"):
        versions.rollback(layout)


def test_rollback_never_returns_to_what_was_left_by_it(tmp_path, layout, make_kit) -> None:
    for number in "123":
        put_in(make_kit(tmp_path / "kit.tar", number), layout)
    versions.rollback(layout)
    put_in(make_kit(tmp_path / "kit.tar", "4"), layout)
    assert [versions.rollback(layout) for _ in range(2)] == ["2-aa", "1-aa"]


def test_a_version_that_is_installed_again_comes_after_the_one_it_replaces(tmp_path, layout, make_kit) -> None:
    for number in "1232":
        put_in(make_kit(tmp_path / "kit.tar", number), layout)
    assert [versions.rollback(layout) for _ in range(2)] == ["3-aa", "1-aa"]


def test_a_version_that_does_not_run_makes_room_for_the_one_before_it(tmp_path, layout, make_kit) -> None:
    for number in "123":
        put_in(make_kit(tmp_path / "kit.tar", number), layout)
    versions.rollback(layout)
    told = fail_to_start(make_kit(tmp_path / "kit.tar", "4"), layout)
    assert told == "service: it does not stay up; returned to 2-aa"
    assert Path(layout.state, "started").read_text() == "2-aa"
    assert versions.current_version(layout) == "2-aa"
    assert versions.rollback(layout) == "1-aa"


def test_rollback_passes_over_a_version_that_did_not_run(tmp_path, layout, make_kit) -> None:
    for number in "123":
        put_in(make_kit(tmp_path / "kit.tar", number), layout)
    versions.remember(layout, "2-aa", good=False)
    assert versions.rollback(layout) == "1-aa"


def test_rollback_without_an_earlier_version_is_told(kit_folder, layout) -> None:
    put_in(kit_folder / "1.tar", layout)
    with pytest.raises(VersionError, match="no earlier good version"):
        versions.rollback(layout)
    assert versions.current_version(layout) == "1-aa"


def test_kits_with_the_same_wheels_share_a_runtime(kit_folder, layout) -> None:
    put_in(kit_folder / "1.tar", layout)
    put_in(kit_folder / "2.tar", layout)
    assert len(list(Path(layout.runtimes).iterdir())) == 1


def test_old_versions_make_room(tmp_path, layout, make_kit) -> None:
    for number in range(5):
        put_in(make_kit(tmp_path / "kit.tar", str(number)), layout)
    assert sorted(path.name for path in Path(layout.versions).iterdir()) == ["2-aa", "3-aa", "4-aa"]


def test_undo_leaves_nothing_and_may_be_said_twice(kit_folder, layout) -> None:
    put_in(kit_folder / "1.tar", layout)
    for _ in range(2):
        undo.undo(layout, say=lambda line: None)
        assert not [path for path in tree(layout.root) if "deepfake" in path.lower() or "setup-board" in path]


def test_a_dry_run_of_undo_shows_what_would_go_and_removes_nothing(kit_folder, layout) -> None:
    put_in(kit_folder / "1.tar", layout)
    before = tree(layout.root)
    said: list[str] = []
    undo.undo(layout, say=said.append, dry_run=True)
    assert tree(layout.root) == before
    files = [layout.at(path) for path in (service.UNIT_PATH, service.RULE_PATH, service.JOURNALD_PATH)]
    assert said == [
        f"{number}. remove {path}"
        for number, path in enumerate([*files, layout.command, layout.programs, layout.state], 1)
    ]


@pytest.fixture
def bare_root(layout) -> Layout:
    """A root as a bare board has it, with something in it that is none of an installation's business."""
    root = Path(layout.root)
    for name in ("etc/systemd/system", "etc/udev/rules.d", "opt", "usr/local/bin", "var/cache", "var/lib", "var/log"):
        (root / name).mkdir(parents=True)
    (root / "etc/udev/rules.d/10-other.rules").write_text("# another's\n")
    return layout


def snapshot(root: str) -> dict[str, tuple[int, str]]:
    """Return the mode of every path, and what it holds or leads to."""
    found = {}
    for path in Path(root).rglob("*"):
        holds = str(path.readlink()) if path.is_symlink() else path.read_text() if path.is_file() else ""
        found[str(path)] = path.lstat().st_mode, holds
    return found


def test_what_systemd_udev_and_journald_read_is_written_and_taken_away_again(kit_folder, bare_root) -> None:
    before = snapshot(bare_root.root)
    put_in(kit_folder / "1.tar", bare_root)
    assert Path(bare_root.at(service.RULE_PATH)).read_text() == service.UDEV_RULE
    assert Path(bare_root.at(service.JOURNALD_PATH)).read_text() == service.JOURNALD
    assert f"ExecStart={bare_root.current}/runtime/bin/edge-detect" in Path(bare_root.at(service.UNIT_PATH)).read_text()
    assert Path(bare_root.command).resolve() == Path(bare_root.tool).resolve()
    undo.undo(bare_root, say=lambda line: None)
    assert snapshot(bare_root.root) == before


@pytest.mark.parametrize("number", range(36))
def test_what_a_power_cut_left_half_done_is_taken_away_too(kit_folder, bare_root, number) -> None:
    before = snapshot(bare_root.root)
    with pytest.MonkeyPatch.context() as patched:
        cut_power(patched, number)
        with contextlib.suppress(PowerCutError):
            put_in(kit_folder / "1.tar", bare_root)
    undo.undo(bare_root, say=lambda line: None)
    assert snapshot(bare_root.root) == before


def test_a_kit_for_another_python_is_told(tmp_path, layout, make_kit) -> None:
    kit = make_kit(tmp_path / "kit.tar", "1", python="3.99")
    with pytest.raises(InstallError, match=r"for Python 3\.99, which is not here"):
        put_in(kit, layout)


def test_a_standalone_python_is_brought_along(tmp_path, real_layout, make_kit) -> None:
    layout = real_layout
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        script = f'#!/bin/sh\nexec {sys.executable} "$@"\n'.encode()
        member = tarfile.TarInfo(f"python/bin/python{PYTHON}")
        member.size, member.mode = len(script), 0o755
        tar.addfile(member, io.BytesIO(script))
    kit = tmp_path / "kit.tar"
    digest = hashlib.sha256(archive.getvalue()).hexdigest()
    make_kit(kit, "1")
    add_to_kit(kit, "python/cpython.tar.gz", archive.getvalue())
    put_in(kit, layout)
    assert (Path(layout.programs) / f"python-{digest[:8]}" / "bin" / f"python{PYTHON}").exists()
    assert versions.current_version(layout) == "1-aa"


def test_a_board_with_python_3_8_runs_on_a_real_python_that_was_brought_along(tmp_path, make_kit, python38) -> None:
    """The vendor's Ubuntu 20.04, as far as another machine can show it."""
    version, archive = system_python()
    kit = make_kit(tmp_path / "kit.tar", "1", python=version)
    add_to_kit(kit, f"python/cpython-{version}.tar.gz", archive)
    layout = Layout(str(tmp_path / "board"))
    kits.make_tool(str(tmp_path / kits.TOOL))
    command = [python38, str(tmp_path / kits.TOOL), "install", "--kit", str(kit), "--root", layout.root]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.endswith("1-aa is installed\n"), done.stderr
    asked = "import json, sys; print(sys.version_info[:2], sys.base_prefix, json.__file__)"
    said = subprocess.run([layout.python, "-I", "-c", asked], capture_output=True, text=True).stdout
    brought = next(Path(layout.programs).glob("python-*"))
    library = brought / "lib" / f"python{version}" / "json" / "__init__.py"
    assert said == f"({version.replace('.', ', ')}) {brought} {library}\n"


def system_python() -> tuple[str, bytes]:
    """Return the version of the distribution's Python, and itself packed as a standalone one."""
    if not Path("/usr/bin/python3").exists():
        pytest.skip("needs the distribution's Python")
    asked = "import sys, sysconfig; print('%d.%d' % sys.version_info[:2], sysconfig.get_path('stdlib'))"
    found = subprocess.run(["/usr/bin/python3", "-c", asked], capture_output=True, text=True, check=True)
    version, library = found.stdout.split()
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz", compresslevel=1) as tar:
        tar.add(os.path.realpath("/usr/bin/python3"), f"python/bin/python{version}")
        tar.add(library, f"python/lib/python{version}", filter=without_what_is_made)
    return version, data.getvalue()


def without_what_is_made(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leave out compiled modules, and links out of the tree, which no standalone Python has."""
    made = "__pycache__" in member.name or (member.issym() and member.linkname.startswith("/"))
    return None if made else member


def add_to_kit(path: Path, name: str, data: bytes) -> None:
    with tarfile.open(path) as tar:
        contents = {member.name: tar.extractfile(member).read() for member in tar}
    manifest = json.loads(contents[kits.MANIFEST])
    manifest["archive"] = name if name.startswith("python/") else ""
    manifest["files"][name] = hashlib.sha256(data).hexdigest()
    contents = {**contents, name: data, kits.MANIFEST: json.dumps(manifest).encode()}
    with tarfile.open(path, "w") as tar:
        for member_name, content in contents.items():
            member = tarfile.TarInfo(member_name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def test_driver_packages_are_brought_once_remembered_and_taken_away(tmp_path, layout, make_kit, monkeypatch) -> None:
    kit = make_kit(tmp_path / "kit.tar", "1")
    add_to_kit(kit, "debs/driver.deb", b"a package")
    ran: list[list[str]] = []
    monkeypatch.setattr(commands, "run", lambda command: ran.append([Path(word).name for word in command]))
    monkeypatch.setattr(commands, "output", lambda command: "driver")
    monkeypatch.setattr(commands, "succeeds", lambda command: False)
    put_in(kit, layout)
    put_in(kit, layout)
    undo.undo(layout, say=lambda line: None)
    assert ran == [["dpkg", "--install", "driver.deb"], ["dpkg", "--purge", "driver"]]


def test_every_user_is_taken_out_of_the_groups_again(kit_folder, layout, monkeypatch) -> None:
    ran: list[str] = []
    members = {"video": ["edge"], "render": []}
    monkeypatch.setattr(commands, "run", lambda command: ran.append(" ".join(command)))
    monkeypatch.setattr(commands, "call", lambda command: ran.append(" ".join(command)))
    monkeypatch.setattr(service, "existing_groups", lambda: list(members))
    monkeypatch.setattr(grp, "getgrnam", lambda name: SimpleNamespace(gr_mem=members[name]))
    for user in ("edge", "guest"):
        Installer(str(kit_folder / "1.tar"), layout, user=user)._add_groups()
    members["video"].remove("edge")
    Installer(str(kit_folder / "1.tar"), layout, user="edge")._add_groups()
    undo.undo(layout, say=lambda line: None)
    assert sorted(ran[3:]) == [
        "gpasswd --delete edge render",
        "gpasswd --delete edge video",
        "gpasswd --delete guest render",
        "gpasswd --delete guest video",
    ]


def test_a_log_shows_at_once_how_far_an_installation_came() -> None:
    """Into a pipe Python would keep lines back until the end."""
    script = "import board_setup.board.install, time; board_setup.board.install.tell('kit …'); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "kit …\n"
    process.kill()
    process.communicate()
