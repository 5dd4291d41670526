"""Parts are named by their list and model, done once, and done again only where that is needed."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from helpers.waiting import until

from edge_runtime.bulk.cli import parse_share
from edge_runtime.bulk.engines import MAX_DEATHS, Queue
from edge_runtime.bulk.entries import Entry
from edge_runtime.bulk.listing import entries_of
from edge_runtime.bulk.parts import PictureList
from edge_runtime.bulk.storage import write_whole
from edge_runtime.errors import UsageError
from edge_runtime.sources import files
from edge_runtime.sources.files import sorted_names


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_finished_run_judges_nothing_again(judge, pictures, rows_of, tmp_path):
    out = tmp_path / "out"
    first = judge(pictures, "--out", out, "--part-size", "4")
    assert first.parts == {"total": 4, "done_before": 0, "done": 4, "failed": 0}
    before, rows = names(out), rows_of(out)
    times = [(out / name).stat().st_mtime_ns for name in before]
    again = judge(pictures, "--out", out, "--part-size", "4")
    assert again.parts == {"total": 4, "done_before": 4, "done": 0, "failed": 0}
    assert (again.pictures, again.verdicts, again.unreadable) == (14, first.verdicts, first.unreadable)
    assert times == [(out / name).stat().st_mtime_ns for name in before]
    # One file is missing, another is cut off: these two alone are judged again.
    (out / before[0]).unlink()
    (out / before[1]).write_bytes((out / before[1]).read_bytes()[:-20])
    repaired = judge(pictures, "--out", out, "--part-size", "4")
    assert repaired.parts == {"total": 4, "done_before": 2, "done": 2, "failed": 0}
    assert (names(out), rows_of(out)) == (before, rows)


def test_another_list_model_or_setting_starts_new_parts(judge, pictures, make_bundle, tmp_path):
    out = tmp_path / "out"
    judge(pictures / "sub", "--out", out)
    assert judge(pictures / "sub", "--out", out, "--min-face", "99").parts["done"] == 1
    other = make_bundle(tmp_path / "other", version="2.0.0")
    assert judge(pictures / "sub", "--out", out, model=other).parts["done"] == 1
    assert judge(pictures, "--out", out).parts["done"] == 1
    assert judge(pictures / "sub", "--out", out).parts["done_before"] == 1
    assert len(names(out)) == 4


def test_shares_add_up(judge, pictures, rows_of, tmp_path):
    whole = judge(pictures, "--out", tmp_path / "whole", "--part-size", "3")
    parts = [judge(pictures, "--out", tmp_path / "out", "--part-size", "3", "--part", f"{k}/3") for k in (1, 2, 3)]
    assert [done.parts["total"] for done in parts] == [2, 2, 1]
    assert sum(done.pictures for done in parts) == whole.pictures == 14
    assert rows_of(tmp_path / "out") == rows_of(tmp_path / "whole")
    # A job holds the lines of its own parts only.
    own = PictureList(entries_of([str(pictures)]), 3, share=(2, 3))
    assert (own.pictures, own.listed, sum(map(len, own.lines()))) == (3, 14, sum(piece.size for piece in own.pieces))
    assert own._file.tell() == sum(piece.size for piece in own.pieces)
    for text in ("0/3", "4/3", "1", "a/b", "1/0"):
        with pytest.raises(UsageError):
            parse_share(text)


def test_an_address_of_ray_needs_its_engine(judge, pictures, tmp_path):
    done = judge(pictures, "--out", tmp_path / "out", "--ray-address", "head:6379")
    assert (done.returncode, done.err) == (2, "error: --ray-address needs --engine ray\n")
    assert not (tmp_path / "out").exists()


def test_a_written_list_is_the_same_input(judge, pictures, tmp_path):
    judge(pictures, "--write-list", tmp_path / "all.txt")
    judge(pictures, "--out", tmp_path / "out")
    assert judge(tmp_path / "all.txt", "--out", tmp_path / "out").parts["done_before"] == 1


def test_pictures_named_twice_are_judged_once(judge, pictures, tmp_path):
    done = judge(pictures, pictures, "--out", tmp_path / "out", "--part-size", "14")
    assert (done.pictures, done.parts["total"]) == (14, 1)


def test_outputs_among_inputs_are_refused(judge, pictures):
    done = judge(pictures, "--out", pictures / "out")
    assert (done.returncode, (pictures / "out").exists()) == (2, False)
    assert "choose another folder for --out" in done.err


@pytest.mark.slow
def test_a_dead_workers_part_goes_to_another(judge, bundle_path, pictures, rows_of, tmp_path):
    many, out = tmp_path / "many", tmp_path / "out"
    many.mkdir()
    for number in range(600):
        os.link(pictures / f"{2 * (number % 3):02}.png", many / f"{number:03}.png")
    command = [sys.executable, "-m", "edge_runtime.bulk.cli", str(many), "--model", str(bundle_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command += ["--part-size", "5", "--workers", "1", "--out", str(out)]
    run = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    for parts in (3, 40):
        until(lambda parts=parts: len(list(out.glob("part-*"))) >= parts, 60)
        # The worker, and multiprocessing's resource tracker, which the run does without.
        for child in psutil.Process(run.pid).children():
            child.kill()
    printed, _ = run.communicate(timeout=120)
    assert run.returncode == 0
    assert "120 judged now" in printed
    judge(many, "--out", tmp_path / "undisturbed")
    assert rows_of(out) == rows_of(tmp_path / "undisturbed")
    assert len(rows_of(out)) == 600
    # A worker killed while it writes leaves a temporary file.
    assert len(list(out.glob(".*.partial"))) <= 2


def test_a_part_that_kills_its_workers_is_given_up():
    queue = Queue(PictureList([Entry("/a.jpg")]), [0])
    deaths = []
    for _ in range(MAX_DEATHS):
        assert queue.take().lines == ("/a.jpg",)
        deaths.append(queue.died(0))
    assert deaths[:-1] == [None] * (MAX_DEATHS - 1)
    assert "out of memory" in deaths[-1].error
    assert queue.take() is None


def test_a_missing_bundle_ends_in_one_line(judge, pictures, tmp_path):
    done = judge(pictures, "--out", tmp_path / "out", model=tmp_path / "gone")
    assert (done.returncode, len(done.err.splitlines())) == (2, 1)


def test_many_names_are_sorted_on_disk(monkeypatch, tmp_path):
    made = sorted(["b\nc", "ä", ".hidden", os.fsdecode(b"\xff"), *(f"{number:03}" for number in range(40))])
    for name in made:
        (tmp_path / name).touch()
    made.remove(".hidden")
    assert list(sorted_names(tmp_path, at_once=7)) == list(sorted_names(tmp_path)) == made
    monkeypatch.setattr(files, "RUNS_AT_ONCE", 4)
    open_before = len(list(Path("/proc/self/fd").iterdir()))
    found = sorted_names(tmp_path, at_once=2)
    # 21 runs in five files of four and one of one.
    assert len(list(Path("/proc/self/fd").iterdir())) - open_before == 6
    assert list(found) == made


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    write_whole(str(tmp_path), "a", b"one")
    write_whole(str(tmp_path), "a", b"two")
    assert (names(tmp_path), (tmp_path / "a").read_bytes()) == (["a"], b"two")
