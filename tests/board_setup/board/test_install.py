"""Installing: step by step, resumable anywhere, never switching to a version that fails, and undone without a trace.

The kits hold a small stand-in for the runtime, so that a test is quick; the virtual board installs the real one.
"""

import grp
import io
import json
import os
import pwd
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import kits as kits_helper
from helpers.kits import PYTHON, make_kit

from board_setup import cli
from board_setup.board import commands, disk, environment, service, steps, undo, versions
from board_setup.board.install import install, next_step
from board_setup.board.layout import FORWARD, SERVICE, Layout
from board_setup.board.service import ServiceError
from board_setup.board.steps import InstallError, Target
from board_setup.board.versions import VersionError


@pytest.fixture(scope="session")
def kits(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("kits")
    for version in "1234":
        make_kit(folder / f"{version}.tar", version)
    make_kit(folder / "bad.tar", "3", "wrong")
    return folder


@pytest.fixture
def real_layout(tmp_path, monkeypatch) -> Layout:
    """A board where virtual environments are real."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    return Layout(str(tmp_path / "board"))


@pytest.fixture
def layout(real_layout, monkeypatch) -> Layout:
    """A board where a virtual environment is two scripts, which is quick."""
    monkeypatch.setattr(environment, "make", quick_environment)
    return real_layout


def quick_environment(python: str, target: str, wheels: str, requirement: str) -> None:
    folder = Path(target) / "bin"
    with zipfile.ZipFile(next(Path(wheels).glob("deepfake_edge-*"))) as wheel:
        check = wheel.read("edge_runtime/model/check.py").decode()
    folder.mkdir(parents=True)
    (folder / "check.py").write_text(check)
    if "/python-" in python:
        (folder / "python").symlink_to(python)
        return
    for name, script in (
        # In place of: python -I -B -c PROGRAM --model FOLDER
        ("python", f'shift 4; exec {sys.executable} -I -S {folder}/check.py "$@"'),
        ("edge-detect", "echo detecting"),
    ):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)


def put_in(kit: Path, layout: Layout) -> list[str]:
    said: list[str] = []
    install(str(kit), layout, say=said.append)
    return said


def take_out(layout: Layout) -> None:
    undo.undo(layout, say=lambda line: None)


def detect(layout: Layout) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [layout.current + "/runtime/bin/edge-detect"]
    return subprocess.run(command, env=environment, capture_output=True, text=True).stdout


def done_steps(said: list[str]) -> list[str]:
    return [line.removesuffix(" …") for line in said if line.endswith(" …")]


@pytest.mark.slow
def test_kit_becomes_the_current_version(kits, real_layout) -> None:
    layout = real_layout
    assert put_in(kits / "1.tar", layout)[-1] == "1-aa is installed"
    assert versions.current_version(layout) == "1-aa"
    assert detect(layout) == "detecting\n"
    assert Path(layout.tool).read_bytes().startswith(b"#!/usr/bin/env python3")
    assert not (Path(layout.programs) / "kits").exists()


def test_second_run_changes_nothing(kits, layout) -> None:
    put_in(kits / "1.tar", layout)
    before = snapshot(layout.versions)
    assert done_steps(put_in(kits / "1.tar", layout)) == []
    assert snapshot(layout.versions) == before


def test_dry_run_writes_nothing(kits, layout) -> None:
    said: list[str] = []
    install(str(kits / "1.tar"), layout, say=said.append, dry_run=True)
    assert [line.split(":")[0].split(" ")[1] for line in said] == [
        "kit", "python", "runtime", "detector", "access", "check", "camera", "journal", "unit", "forward", "command",
        "switch", "signature",
    ]  # fmt: skip
    assert not Path(layout.root).exists()


@pytest.fixture
def with_graphics(layout) -> Layout:
    dri = Path(layout.root, "dev", "dri")
    dri.mkdir(parents=True)
    (dri / "renderD128").touch()
    return layout


def test_fastest_device_is_found_before_the_switch(kits, with_graphics, monkeypatch) -> None:
    said = put_in(kits / "1.tar", with_graphics)
    done = done_steps(said)
    assert done.index("check") < done.index("measure") < done.index("switch")
    assert said[-2:] == ["fastest: FP16 on GPU", "1-aa is installed"]
    assert Path(with_graphics.state, "profile.json").read_text() == "FP16 on GPU"
    assert done_steps(put_in(kits / "1.tar", with_graphics)) == []
    assert "measure" in done_steps(put_in(kits / "2.tar", with_graphics))


def test_failed_measurement_does_not_stop_the_installation(kits, with_graphics, monkeypatch) -> None:
    call = commands.call

    def crash_driver(command, **options):
        crashes = "--measure" in command
        return SimpleNamespace(returncode=-6, stdout=b"") if crashes else call(command, **options)

    monkeypatch.setattr(commands, "call", crash_driver)
    said = put_in(kits / "1.tar", with_graphics)
    assert said[-2] == "fastest: not measured (exit code 134); the service does it when it starts"


@pytest.mark.parametrize("stage", ["check", "measure"])
def test_driver_that_hangs_is_named_in_one_line(tmp_path, with_graphics, monkeypatch, stage) -> None:
    def is_hanging(command: list[str]) -> bool:
        return ("--measure" in command) == (stage == "measure") and "--model" in command

    call = commands.call
    monkeypatch.setattr(
        commands,
        "call",
        lambda command, timeout_s=None: call(command, timeout_s=1.0 if is_hanging(command) else timeout_s),
    )
    # Whoever waits for the end of the output waits for the child too.
    hanging = f"import subprocess, sys\nif ('--measure' in sys.argv) == {stage == 'measure'}: "
    monkeypatch.setattr(kits_helper, "CHECK", f"{hanging}subprocess.run(['sleep', '60'])\n{kits_helper.CHECK}")
    kit, began = make_kit(tmp_path / "kit.tar", "1"), time.monotonic()
    if stage == "check":
        with pytest.raises(InstallError, match=r"^check: [^\n]*no answer from the runtime within [^\n]*driver[^\n]*$"):
            put_in(kit, with_graphics)
        assert versions.current_version(with_graphics) == ""
    else:
        assert "no answer from the runtime" in put_in(kit, with_graphics)[-2]
        assert versions.current_version(with_graphics) == "1-aa"
    assert time.monotonic() - began < 40.0


def readable(top: str) -> set[int]:
    """Return the rights that every user has on what is below."""
    return {path.lstat().st_mode & 0o005 for path in Path(top).rglob("*") if path.is_dir()}


@pytest.mark.parametrize("umask", [0o077, 0o027])
def test_service_can_read_under_any_umask(kits, layout, umask) -> None:
    before = os.umask(umask)
    try:
        put_in(kits / "1.tar", layout)
        versions.switch(layout, "1-aa")
        os.umask(umask)
        put_in(kits / "2.tar", layout)
        os.umask(umask)
        versions.rollback(layout)
        assert os.umask(before) == 0o022
    finally:
        os.umask(before)
    assert readable(layout.root) == {0o005}
    assert {path.stat().st_mode & 0o777 for path in Path(layout.state).rglob("*.json")} == {0o644}


def test_board_that_the_service_could_not_read_is_repaired(kits, layout) -> None:
    put_in(kits / "1.tar", layout)
    tops = (layout.programs, layout.state)
    wanted = [snapshot(top) for top in tops]
    private = Path(layout.state, "pictures", "face.jpg")
    private.parent.mkdir()
    private.touch()
    subprocess.run(["chmod", "-R", "go-rwx", *tops], check=True)
    assert done_steps(put_in(kits / "1.tar", layout)) == ["access"]
    assert private.stat().st_mode & 0o077 == private.parent.stat().st_mode & 0o077 == 0
    shutil.rmtree(private.parent)
    assert [snapshot(top) for top in tops] == wanted
    assert {Path(top).stat().st_mode & 0o777 for top in tops} == {0o755}
    assert done_steps(put_in(kits / "1.tar", layout)) == []


class PowerCutError(BaseException):
    """Nothing catches it, as nothing catches a power cut."""


LAST_WRITE = 36
LAST_WRITE_OF_A_REPAIR = 11


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


@pytest.mark.parametrize("number", range(LAST_WRITE + 1))
def test_same_command_continues_after_a_power_cut(kits, layout, number) -> None:
    with pytest.MonkeyPatch.context() as patched:
        cut_power(patched, number)
        with pytest.raises(PowerCutError):
            put_in(kits / "1.tar", layout)
        assert versions.current_version(layout) in ("", "1-aa")
    put_in(kits / "1.tar", layout)
    assert versions.current_version(layout) == "1-aa"
    assert detect(layout) == "detecting\n"
    assert not list(Path(layout.root).rglob(f"*{disk.PARTIAL}"))


def test_power_cuts_reach_the_last_write(kits, layout, monkeypatch) -> None:
    cut_power(monkeypatch, LAST_WRITE + 1)
    put_in(kits / "1.tar", layout)


def test_full_disk_leaves_no_partial_files(kits, layout, monkeypatch) -> None:
    for module, name, step, filling in (
        (steps.kit, "copy_checked", "kit", "kits/"),
        (disk, "copy", "detector", "versions/"),
    ):
        write = getattr(module, name)

        def full(source, target: str, *others, write=write, filling=filling, **options) -> None:
            if filling in target:
                raise OSError(28, "No space left on device")
            write(source, target, *others, **options)

        with monkeypatch.context() as patched:
            patched.setattr(module, name, full)
            with pytest.raises(InstallError, match=f"^{step}: [^\n]*make room[^\n]*$") as caught:
                put_in(kits / "1.tar", layout)
            assert "copy or pack" not in str(caught.value)
        assert not list(Path(layout.root).rglob(f"*{disk.PARTIAL}"))


def test_damaged_detector_is_repaired_and_checked(kits, layout) -> None:
    put_in(kits / "1.tar", layout)
    Path(layout.started).write_text("1-aa")
    golden = Path(layout.current, "golden", "golden.json")
    Path(layout.current, "runtime").unlink()
    golden.write_text("wrong")
    assert done_steps(put_in(kits / "1.tar", layout)) == ["kit", "detector", "check"]
    assert golden.read_text() == "right"
    assert detect(layout) == "detecting\n"
    assert not Path(layout.started).exists()
    assert done_steps(put_in(kits / "1.tar", layout)) == []


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["a file", "another version"])
def test_damaged_runtime_is_repaired(kits, real_layout, damage) -> None:
    layout = real_layout
    put_in(kits / "1.tar", layout)
    (packages,) = Path(layout.runtimes).glob("*/lib/python*/site-packages")
    if damage == "a file":
        (packages / "edge_runtime" / "cli.py").write_text("")
    else:
        (packages / "deepfake_edge-0.1.0.dist-info").rename(packages / "deepfake_edge-9.dist-info")
    assert done_steps(put_in(kits / "1.tar", layout)) == ["kit", "runtime", "check"]
    assert detect(layout) == "detecting\n"


def test_damaged_tool_is_repaired(kits, layout) -> None:
    put_in(kits / "1.tar", layout)
    Path(layout.tool).write_bytes(b"")
    put_in(kits / "1.tar", layout)
    done = subprocess.run([layout.command, "versions", "--root", layout.root], capture_output=True, text=True)
    assert done.stdout.startswith("* 1-aa")


@pytest.mark.parametrize("name", ["history.json", "way.json", "before.json", "groups.json", "debs.json"])
@pytest.mark.parametrize("text", ["{", "[" * 100_000, '{"a": 1}', '[{"id": 1}]', "7", '"\\ud800"', "\0"])
def test_damaged_records_are_one_line(kits, layout, name, text) -> None:
    put_in(kits / "1.tar", layout)
    path = Path(layout.state, name)
    path.write_text(text)
    with pytest.raises(disk.DamagedError, match=rf"^{path}: damaged; [^\n]*$"):
        take_out(layout) if name in ("before.json", "groups.json", "debs.json") else versions.rollback(layout)


def test_other_command_of_that_name_is_kept(kits, layout) -> None:
    Path(layout.command).parent.mkdir(parents=True)
    Path(layout.command).write_text("another")
    put_in(kits / "1.tar", layout)
    take_out(layout)
    assert Path(layout.command).read_text() == "another"


def test_versions_name_the_model(tmp_path, layout, capsys) -> None:
    put_in(make_kit(tmp_path / "kit.tar", "1"), layout)
    model = {"name": "faces\x1b[2J", "created": "2026-11-27T08:00:00Z", "contract": {"architecture": "resnet50"}}
    for text, told in ((json.dumps(model), "faces\\x1b[2J (resnet50) 2026-11-27"), ("[" * 100_000, "unreadable")):
        Path(layout.versions, "1-aa", "model.json").write_text(text)
        with pytest.raises(SystemExit) as ended:
            cli.main(["versions", "--root", layout.root])
        assert ended.value.code == 0
        assert capsys.readouterr().out.startswith(f"* 1-aa  {told}")


def test_undo_names_the_users_options(layout) -> None:
    path = Path(layout.at(service.OPTIONS_FILE))
    path.parent.mkdir(parents=True)
    path.write_text("DETECT_OPTIONS=--camera 0\n")
    said: list[str] = []
    undo.undo(layout, say=said.append)
    assert any(str(path) in line for line in said)
    assert path.exists()


@pytest.mark.parametrize("sudo", [None, "edge"])
def test_plan_is_for_the_same_user_without_sudo(monkeypatch, sudo) -> None:
    monkeypatch.delenv("SUDO_USER", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: SimpleNamespace(pw_name="edge"))
    if sudo:
        monkeypatch.setenv("SUDO_USER", sudo)
        monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    assert cli.build_parser().parse_args(["install", "--kit", "kit.tar"]).user == "edge"


@pytest.mark.parametrize(("has_camera", "told"), [(False, "waits for one"), (True, "tail -f")])
def test_next_step_after_installation(has_camera, told) -> None:
    assert told in next_step(has_camera)


def test_failing_version_is_not_switched_to(kits, layout) -> None:
    put_in(kits / "1.tar", layout)
    with pytest.raises(InstallError, match="was not switched to: CPU int8: WRONG"):
        put_in(kits / "bad.tar", layout)
    assert versions.current_version(layout) == "1-aa"
    assert not (Path(layout.versions) / "3-aa").exists()


@pytest.mark.parametrize(
    ("installed", "back"),
    [("12", ["1-aa"]), ("123", ["2-aa", "1-aa"]), ("1232", ["3-aa", "1-aa"]), ("123<4", ["2-aa", "1-aa"])],
)
def test_rollback_goes_back_version_by_version(kits, layout, installed, back) -> None:
    for name in installed:
        versions.rollback(layout) if name == "<" else put_in(kits / f"{name}.tar", layout)
    assert [versions.rollback(layout) for _ in back] == back
    with pytest.raises(VersionError, match="no earlier good version"):
        versions.rollback(layout)


def test_rollback_skips_a_version_that_did_not_run(kits, layout) -> None:
    for name in "123":
        put_in(kits / f"{name}.tar", layout)
    versions.remember(layout, "2-aa", good=False)
    assert versions.rollback(layout) == "1-aa"


def test_version_that_does_not_run_is_replaced(kits, layout, monkeypatch) -> None:
    for name in "124":
        put_in(kits / f"{name}.tar", layout)
    failures = iter([ServiceError("it does not stay up")])

    def restart() -> None:
        for failure in failures:
            raise failure

    monkeypatch.setattr(service, "restart", restart)
    with pytest.raises(InstallError, match="it does not stay up; returned to 2-aa"):
        steps.start_service(Target(str(kits / "4.tar"), layout, None)).do()
    assert Path(layout.started).read_text() == "2-aa"
    assert versions.current_version(layout) == "2-aa"
    assert versions.rollback(layout) == "1-aa"


def test_no_more_than_three_versions_are_kept(kits, layout) -> None:
    for name in "1234":
        put_in(kits / f"{name}.tar", layout)
    assert {path.name for path in Path(layout.versions).iterdir()} == {"2-aa", "3-aa", "4-aa"}
    assert len(list(Path(layout.runtimes).iterdir())) == 1


def test_pythons_and_compiled_networks_of_removed_versions_are_removed(tmp_path, layout) -> None:
    cache = Path(layout.at("/var/cache/deepfake-edge"))
    cache.mkdir(parents=True)
    # In place of: python -I -B -c PROGRAM --model FOLDER
    script = f'#!/bin/sh\nshift 4; exec {sys.executable} -I -S "$(dirname "$0")/check.py" "$@"\n'
    for number, archive in enumerate("abcdd", 1):
        contents = {"python/cpython.tar.gz": packed_python(PYTHON, f"{script}# {archive}\n".encode())}
        put_in(make_kit(tmp_path / "kit.tar", str(number), contents=contents), layout)
        (cache / f"{number}.blob").touch()
        assert Path(layout.python).resolve().read_text() == f"{script}# {archive}\n"
    assert {path.name for path in Path(layout.versions).iterdir()} == {"3-aa", "4-aa", "5-aa"}
    assert len(list(Path(layout.runtimes).iterdir())) == 2
    left = Path(layout.programs).glob("python-*/bin/python*")
    assert sorted(path.read_text()[-2] for path in left) == ["c", "d"]
    assert {path.name for path in cache.iterdir()} == {"3.blob", "4.blob", "5.blob"}


def damage_runtime(layout: Layout) -> Path:
    """Damage the current version's virtual environment in a way that does not keep it from running."""
    runtime = Path(layout.current, "runtime").resolve()
    (runtime / disk.COMPLETE).unlink()
    return runtime


@pytest.mark.parametrize("kit", ["1.tar", "2.tar"])
@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), PowerCutError()], ids=["full", "cut"])
def test_running_version_survives_a_repair_that_fails(kits, layout, monkeypatch, kit, failure) -> None:
    put_in(kits / "1.tar", layout)
    damaged = damage_runtime(layout)

    def fail(python: str, target: str, *others: str) -> None:
        Path(target).mkdir()
        raise failure

    with monkeypatch.context() as patched:
        patched.setattr(environment, "make", fail)
        with pytest.raises((InstallError, PowerCutError)):
            put_in(kits / kit, layout)
    assert (versions.current_version(layout), detect(layout)) == ("1-aa", "detecting\n")
    if isinstance(failure, OSError):
        assert list(Path(layout.runtimes).iterdir()) == [damaged]
    put_in(kits / kit, layout)
    assert detect(layout) == "detecting\n"
    # Versions that shared the damaged one share its replacement.
    (replacement,) = Path(layout.runtimes).iterdir()
    assert replacement != damaged
    assert {path.resolve() for path in Path(layout.versions).glob("*/runtime")} == {replacement}
    assert done_steps(put_in(kits / kit, layout)) == []


@pytest.mark.parametrize("number", range(LAST_WRITE_OF_A_REPAIR + 1))
def test_running_version_survives_a_power_cut_in_its_repair(kits, layout, number) -> None:
    put_in(kits / "1.tar", layout)
    damage_runtime(layout)
    with pytest.MonkeyPatch.context() as patched:
        cut_power(patched, number)
        with pytest.raises(PowerCutError):
            put_in(kits / "1.tar", layout)
    assert detect(layout) == "detecting\n"
    put_in(kits / "1.tar", layout)
    assert detect(layout) == "detecting\n"
    assert environment.is_intact(str(Path(layout.current, "runtime").resolve()))
    assert versions.history(layout)[-1][::2] == ("1-aa", True)
    assert done_steps(put_in(kits / "1.tar", layout)) == []


def test_power_cuts_reach_the_last_write_of_a_repair(kits, layout, monkeypatch) -> None:
    put_in(kits / "1.tar", layout)
    damage_runtime(layout)
    cut_power(monkeypatch, LAST_WRITE_OF_A_REPAIR + 1)
    put_in(kits / "1.tar", layout)


@pytest.fixture
def bare_root(layout) -> Layout:
    """A root as a bare board has it, with one file of somebody else."""
    root = Path(layout.root)
    for name in ("etc/systemd/system", "etc/udev/rules.d", "opt", "usr/local/bin", "var/cache", "var/lib", "var/log"):
        (root / name).mkdir(parents=True)
    (root / "etc/udev/rules.d/10-other.rules").write_text("# another's\n")
    return layout


def snapshot(root: str) -> dict[str, tuple[int, str]]:
    """Return the mode of every path, and its content or target."""
    found = {}
    for path in Path(root).rglob("*"):
        holds = (
            str(path.readlink()) if path.is_symlink() else path.read_text(errors="replace") if path.is_file() else ""
        )
        found[str(path)] = path.lstat().st_mode, holds
    return found


def test_undo_removes_what_was_written(kits, bare_root) -> None:
    before = snapshot(bare_root.root)
    put_in(kits / "1.tar", bare_root)
    assert Path(bare_root.at(service.RULE_PATH)).read_text() == service.UDEV_RULE
    assert Path(bare_root.at(service.JOURNALD_PATH)).read_text() == service.JOURNALD
    assert f"ExecStart={bare_root.current}/runtime/bin/edge-detect" in Path(bare_root.at(service.UNIT_PATH)).read_text()
    assert Path(bare_root.command).resolve() == Path(bare_root.tool).resolve()
    take_out(bare_root)
    assert snapshot(bare_root.root) == before


@pytest.mark.parametrize("number", range(LAST_WRITE + 1))
def test_undo_removes_what_a_power_cut_left(kits, bare_root, number) -> None:
    before = snapshot(bare_root.root)
    with pytest.MonkeyPatch.context() as patched:
        cut_power(patched, number)
        with pytest.raises(PowerCutError):
            put_in(kits / "1.tar", bare_root)
    take_out(bare_root)
    assert snapshot(bare_root.root) == before


def test_missing_python_is_named(tmp_path, layout) -> None:
    kit = make_kit(tmp_path / "kit.tar", "1", python="3.99")
    with pytest.raises(InstallError, match=r"for Python 3\.99, which is not installed"):
        put_in(kit, layout)


@pytest.mark.slow
def test_standalone_python_is_installed(tmp_path, real_layout) -> None:
    version, archive = system_python()
    contents = {"python/cpython.tar.gz": archive}
    put_in(make_kit(tmp_path / "kit.tar", "1", contents=contents, python=version), real_layout)
    (installed,) = Path(real_layout.programs).glob("python-*")
    assert Path(real_layout.python).resolve() == installed / "bin" / f"python{version}"
    assert versions.current_version(real_layout) == "1-aa"


def packed_python(version: str, program: bytes) -> bytes:
    """Return a program packed as a standalone Python."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo(f"python/bin/python{version}")
        member.size, member.mode = len(program), 0o755
        tar.addfile(member, io.BytesIO(program))
    return archive.getvalue()


@pytest.mark.slow
def test_python_3_8_installs_a_real_python(tmp_path, python38) -> None:
    """The vendor's Ubuntu 20.04, as far as another machine can show it."""
    version, archive = system_python()
    kit = make_kit(tmp_path / "kit.tar", "1", contents={f"python/cpython-{version}.tar.gz": archive}, python=version)
    layout = Layout(str(tmp_path / "board"))
    tool = tmp_path / "setup-board.pyz"
    with tarfile.open(kit) as tar:
        tool.write_bytes(tar.extractfile("setup-board.pyz").read())
    command = [python38, str(tool), "install", "--kit", str(kit), "--root", layout.root]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.endswith("1-aa is installed\n"), done.stderr
    asked = "import json, sys; print(sys.version_info[:2], sys.base_prefix, json.__file__)"
    said = subprocess.run([layout.python, "-I", "-c", asked], capture_output=True, text=True).stdout
    installed = next(Path(layout.programs).glob("python-*"))
    library = installed / "lib" / f"python{version}" / "json" / "__init__.py"
    assert said == f"({version.replace('.', ', ')}) {installed} {library}\n"


def system_python() -> tuple[str, bytes]:
    """Return the version of the distribution's Python, and that Python packed as a standalone one."""
    if not Path("/usr/bin/python3").exists():
        pytest.skip("needs the distribution's Python")
    asked = "import sys, sysconfig; print('%d.%d' % sys.version_info[:2], sysconfig.get_path('stdlib'))"
    found = subprocess.run(["/usr/bin/python3", "-c", asked], capture_output=True, text=True, check=True)
    version, library = found.stdout.split()

    def without_links_and_caches(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        unwanted = "__pycache__" in member.name or (member.issym() and member.linkname.startswith("/"))
        return None if unwanted else member

    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz", compresslevel=1) as tar:
        tar.add(os.path.realpath("/usr/bin/python3"), f"python/bin/python{version}")
        tar.add(library, f"python/lib/python{version}", filter=without_links_and_caches)
    return version, data.getvalue()


def test_driver_packages_are_installed_once_and_removed(tmp_path, layout, monkeypatch) -> None:
    kit = make_kit(tmp_path / "kit.tar", "1", contents={"debs/driver.deb": b"a package"})
    ran: list[list[str]] = []
    monkeypatch.setattr(commands, "run", lambda command: ran.append([Path(word).name for word in command]))
    monkeypatch.setattr(commands, "output", lambda command: "driver")
    monkeypatch.setattr(commands, "succeeds", lambda command: False)
    put_in(kit, layout)
    put_in(kit, layout)
    take_out(layout)
    assert ran == [["dpkg", "--install", "driver.deb"], ["dpkg", "--purge", "driver"]]


CONFIGURED = (
    "udevadm control --reload",
    "udevadm trigger --subsystem-match=video4linux",
    "systemctl restart systemd-journald",
    "systemctl daemon-reload",
    "systemctl enable deepfake-edge.service",
    "systemctl enable deepfake-edge-forward.service",
)


@pytest.mark.parametrize("failure", [commands.CommandError("it failed"), PowerCutError()], ids=["fails", "cut"])
@pytest.mark.parametrize("failing", CONFIGURED)
def test_system_reads_its_files_after_a_command_failed(kits, layout, monkeypatch, failing, failure) -> None:
    """What the system was told counts, not only that the file is there."""
    ran: list[str] = []

    def run(command) -> None:
        if " ".join(command) == failing:
            raise failure
        ran.append(" ".join(command))

    def configure() -> list[str]:
        ran.clear()
        target = Target(str(kits / "1.tar"), layout, None)
        target.live = True
        plan = steps.configure_system(target)
        for step in [step for step in plan if not step.is_done()]:
            step.do()
        return [step.name for step in plan if not step.is_done()]

    enabled = "systemctl is-enabled --quiet deepfake-edge"
    monkeypatch.setattr(commands, "succeeds", lambda command: " ".join(command).startswith(enabled))
    monkeypatch.setattr(commands, "run", run)
    with pytest.raises(type(failure)):
        configure()
    monkeypatch.setattr(commands, "run", lambda command: ran.append(" ".join(command)))
    assert configure() == []
    assert failing in ran
    configure()
    assert ran == []


@pytest.mark.parametrize("unit", [SERVICE, FORWARD])
def test_unit_that_is_not_enabled_is_enabled(kits, layout, monkeypatch, unit) -> None:
    ran: list[str] = []
    target = Target(str(kits / "1.tar"), layout, None)
    target.live = True
    monkeypatch.setattr(commands, "run", lambda command: ran.append(" ".join(command)))
    for step in steps.configure_system(target):
        step.do()
    ran.clear()
    monkeypatch.setattr(commands, "succeeds", lambda command: command[-1] != unit)
    left = [step for step in steps.configure_system(target) if not step.is_done()]
    for step in left:
        step.do()
    assert (len(left), ran) == (1, ["systemctl daemon-reload", f"systemctl enable {unit}"])


def test_every_user_leaves_the_groups_again(kits, layout, monkeypatch) -> None:
    ran: list[str] = []
    members = {"video": ["edge"], "render": []}
    monkeypatch.setattr(commands, "run", lambda command: ran.append(" ".join(command)))
    monkeypatch.setattr(commands, "call", lambda command: ran.append(" ".join(command)))
    monkeypatch.setattr(service, "existing_groups", lambda: list(members))
    monkeypatch.setattr(grp, "getgrnam", lambda name: SimpleNamespace(gr_mem=members[name]))
    target = Target(str(kits / "1.tar"), layout, None)
    steps.add_groups(target, "edge").do()
    steps.add_groups(target, "guest").do()
    members["video"].remove("edge")
    steps.add_groups(target, "edge").do()
    take_out(layout)
    assert sorted(ran[3:]) == [
        "gpasswd --delete edge render",
        "gpasswd --delete edge video",
        "gpasswd --delete guest render",
        "gpasswd --delete guest video",
    ]


def test_progress_is_not_buffered() -> None:
    """Python buffers what it writes into a pipe until the end."""
    script = "import board_setup.board.install, time; board_setup.board.install.tell('kit …'); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "kit …\n"
    process.kill()
    process.communicate()
