"""A bundle is there whole or not at all."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge_runtime.errors import UsageError
from export.bundle import atomic
from export.bundle.atomic import check_target, folder_in_one_step

WRITER = """
import sys
from pathlib import Path
from export.bundle.atomic import folder_in_one_step
target, generation = Path(sys.argv[1]), 1
while True:
    generation += 1
    with folder_in_one_step(target) as folder:
        for name in ("a", "b", "c"):
            (folder / name).write_text(str(generation) * 1000)
        (folder / "model.json").write_text(str(generation))
    print(generation, flush=True)
"""


def write(target: Path, text: str) -> None:
    with folder_in_one_step(target) as folder:
        (folder / "model.json").write_text(text)


def write_half(target: Path) -> None:
    with folder_in_one_step(target) as folder:
        (folder / "model.json").write_text("half")
        raise OSError("disk full")


def test_the_folder_appears_when_the_block_ends_and_not_before(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "bundle"
    with folder_in_one_step(target) as folder:
        (folder / "model.json").write_text("{}")
        assert not target.exists()
    assert (target / "model.json").read_text() == "{}"
    assert [path.name for path in target.parent.iterdir()] == ["bundle"]


def test_a_block_that_fails_leaves_the_old_folder_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    write(target, "old")
    with pytest.raises(OSError, match="disk full"):
        write_half(target)
    assert (target / "model.json").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("exchange", [True, False])
def test_a_bundle_is_replaced_with_and_without_the_system_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    if not exchange:
        monkeypatch.setattr(atomic, "_exchange", lambda first, second: False)
    target = tmp_path / "bundle"
    write(target, "old")
    write(target, "new")
    assert (target / "model.json").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_killed_at_any_moment_the_old_bundle_or_the_new_one_is_there_whole(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    write(target, "1")
    pause, seen = random.Random(42), set()
    for _ in range(6):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(target)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout
        writer.stdout.readline()
        time.sleep(pause.uniform(0, 0.02))
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        generation = (target / "model.json").read_text()
        seen.add(generation)
        others = {path.read_text() for path in target.iterdir() if path.name != "model.json"}
        assert others <= {generation * 1000}
        assert generation == "1" or len(list(target.iterdir())) == 4
    write(target, "last")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"], "what the killed left is removed"
    assert len(seen) > 1


def test_another_export_at_work_is_left_alone(tmp_path: Path) -> None:
    alive = tmp_path / f".bundle.partial-{os.getppid()}"
    alive.mkdir()
    write(tmp_path / "bundle", "new")
    assert alive.is_dir()


def test_an_empty_folder_or_none_may_be_written(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    check_target(tmp_path / "empty", replace=False)
    check_target(tmp_path / "none" / "yet", replace=False)


def test_a_bundle_is_only_replaced_when_that_is_said(tmp_path: Path) -> None:
    write(tmp_path / "bundle", "old")
    with pytest.raises(UsageError, match="add --replace"):
        check_target(tmp_path / "bundle", replace=False)
    check_target(tmp_path / "bundle", replace=True)


@pytest.mark.parametrize("replace", [True, False])
def test_what_is_no_bundle_is_never_replaced(tmp_path: Path, replace: bool) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").touch()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    for name in ("photos", "file", "link"):
        with pytest.raises(UsageError, match="choose another --out"):
            check_target(tmp_path / name, replace=replace)
