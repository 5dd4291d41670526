"""A bundle is written whole or not at all, and never takes other files along."""

import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.studies.small import write_small_bundle
from edge_runtime.errors import UsageError
from edge_runtime.model.bundle import Bundle
from export.bundle import atomic
from export.bundle.atomic import check_target, folder_in_one_step

WRITER = """
import shutil, sys
from pathlib import Path
from export.bundle.atomic import folder_in_one_step
target, sources = Path(sys.argv[1]), sys.argv[2:]
while True:
    for source in sources:
        with folder_in_one_step(target, replace=True) as folder:
            shutil.copytree(source, folder, dirs_exist_ok=True)
        print("written", flush=True)
"""
HOLDER = """
import sys, time
from pathlib import Path
from export.bundle.atomic import folder_in_one_step
with folder_in_one_step(Path(sys.argv[1])) as folder:
    (folder / "half").touch()
    print("writing", flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_bundle(tmp_path_factory.mktemp("old") / "bundle", precisions=("fp32",))


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_bundle(tmp_path_factory.mktemp("new") / "bundle", precisions=("fp32", "int8"))


@pytest.fixture
def target(tmp_path: Path, old: Path) -> Path:
    """A bundle that can be replaced, alone in its folder."""
    return shutil.copytree(old, tmp_path / "bundle")


def write(target: Path, source: Path, *, replace: bool = False, meanwhile: Callable[[], object] = bool) -> None:
    with folder_in_one_step(target, replace=replace) as folder:
        shutil.copytree(source, folder, dirs_exist_ok=True)
        meanwhile()


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_folder_appears_when_the_block_ends(tmp_path: Path, new: Path) -> None:
    target = tmp_path / "deep" / "bundle"
    write(target, new, meanwhile=lambda: target.exists() and pytest.fail("it is there too early"))
    Bundle.open(target).check()
    assert names(target.parent) == {"bundle"}


def test_a_failing_block_leaves_the_old_bundle(target: Path, new: Path) -> None:
    before = names(target)
    with pytest.raises(ZeroDivisionError):
        write(target, new, replace=True, meanwhile=lambda: 1 / 0)
    assert names(target) == before
    assert names(target.parent) == {"bundle"}


@pytest.mark.parametrize("exchange", [True, False])
def test_replacing_with_and_without_the_system_call(
    target: Path, new: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    if not exchange:
        monkeypatch.setattr(atomic, "_exchange", lambda first, second: False)
    write(target, new, replace=True)
    assert names(target) == names(new)
    assert names(target.parent) == {"bundle"}


def test_killed_at_any_moment_one_whole_bundle_is_there(target: Path, old: Path, new: Path) -> None:
    pause, seen = random.Random(42), set()
    for _ in range(6):
        command = [sys.executable, "-c", WRITER, str(target), str(new), str(old)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            writer.stdout.readline()
            time.sleep(pause.uniform(0, 0.02))
            writer.send_signal(signal.SIGKILL)
        bundle = Bundle.open(target)
        bundle.check()
        seen.add(len(bundle.precisions))
        assert names(target) == names(new if len(bundle.precisions) == 2 else old)
    write(target, new, replace=True)
    assert names(target.parent) == {"bundle"}, "the next writer removes what a killed one left"


def test_a_second_writer_is_refused_until_the_first_is_gone(tmp_path: Path, new: Path) -> None:
    target = tmp_path / "bundle"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(target)], stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        with pytest.raises(UsageError, match="another process is writing it"):
            write(target, new)
        assert (tmp_path / ".bundle.partial" / "half").exists()
        holder.send_signal(signal.SIGKILL)
    write(target, new)
    assert names(tmp_path) == {"bundle"}
    assert names(target) == names(new)


def test_what_appears_meanwhile_is_kept(tmp_path: Path, target: Path, new: Path) -> None:
    with pytest.raises(UsageError, match=r"thesis\.tex is not part of the bundle"):
        write(target, new, replace=True, meanwhile=(target / "thesis.tex").touch)
    assert (target / "thesis.tex").exists()
    shutil.rmtree(target)
    with pytest.raises(UsageError, match="appeared meanwhile"):
        write(target, new, meanwhile=lambda: (target.mkdir(), (target / "thesis.tex").touch()))
    assert names(target) == {"thesis.tex"}
    assert names(tmp_path) == {"bundle"}


@pytest.mark.parametrize("place", ["thesis.tex", "fp32/best.pth", "photos/holiday.jpg", "link"])
def test_a_bundle_with_other_files_is_never_replaced(target: Path, place: str) -> None:
    path = target / place
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(target.parent) if place == "link" else path.touch()
    with pytest.raises(UsageError, match=f"{place} is not part of the bundle"):
        check_target(target, replace=True)


def test_what_may_be_written_and_what_only_on_request(
    target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    check_target(tmp_path / "empty")
    check_target(tmp_path / "none" / "yet")
    with pytest.raises(UsageError, match="already holds a bundle; add --replace, or choose another --out"):
        check_target(target)
    check_target(target, replace=True)
    monkeypatch.setattr(Path, "is_mount", lambda path: path == tmp_path)
    with pytest.raises(UsageError, match="is a mount point"):
        check_target(tmp_path)


@pytest.mark.parametrize("replace", [True, False])
@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("photos", "photos: is not (empty and not )?a bundle.*; choose another --out"),
        ("manifest", "choose another --out"),
        ("file", "file: already exists and is not a directory; choose another --out"),
        ("link", "link: is a symbolic link; choose another --out"),
        ("dangling", "dangling: is a symbolic link; choose another --out"),
        ("file/below", "choose another --out"),
    ],
)
def test_what_is_no_bundle_is_never_replaced(tmp_path: Path, what: str, said: str, replace: bool) -> None:
    for folder, name in (("photos", "holiday.jpg"), ("manifest", "model.json")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text("{}")
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    (tmp_path / "dangling").symlink_to(tmp_path / "none")
    with pytest.raises(UsageError, match=said):
        check_target(tmp_path / what, replace=replace)
