"""The whole way once, with a small network that learns next to nothing: every command, every artefact."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.demo.demo import TINY, plan_demo, summarize
from benchmarks.results.schema import Report
from edge_runtime.model.bundle import Bundle

COMMAND = (sys.executable, "-m", "benchmarks.demo", "--tiny", "--out")


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "demo"
    done = subprocess.run([*COMMAND, str(out)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out, done.stdout


def results(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_it_ends_with_a_table_and_the_way_to_go_on(first):
    out, said = first
    assert "FP32" in said
    assert "demonstration model" in said
    assert f"bundle  {out / 'detector'}" in said
    assert f"report  {out / 'benchmark' / 'report.html'}" in said
    assert "edge-detect --camera 0" in said


def test_the_bundle_is_a_demonstration_and_whole(first):
    bundle = Bundle.open(first[0] / "detector")
    assert bundle.contract.demo
    assert bundle.contract.architecture == TINY.arch
    assert {precision.value for precision in bundle.precisions} >= {"fp32", "fp16"}


def test_every_picture_and_every_frame_got_a_verdict(first):
    out, _ = first
    pictures, frames = results(out / "pictures.jsonl"), results(out / "clip.jsonl")
    judged = [line for line in pictures if line["state"] == "ok"]
    assert len(judged) == 2 * TINY.shown
    assert all(len(line["faces"]) == 1 for line in judged)
    assert sum(line["state"] == "ok" for line in frames) == round(TINY.clip_s * 15)


def test_the_report_compares_the_precisions_on_held_out_faces(first):
    lines = summarize(Report.read(first[0] / "benchmark"))
    assert {line.precision for line in lines} >= {"fp32", "fp16"}
    assert all(line.fps and line.latency_ms and line.auc is not None for line in lines)


def test_a_second_run_skips_all_but_what_it_shows(first):
    out, _ = first
    stamp = (out / "run" / "best.pth").stat().st_mtime_ns
    done = subprocess.run([*COMMAND, str(out)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("is there already") == len(plan_demo(out, None, TINY, online=False)) - 2
    assert (out / "run" / "best.pth").stat().st_mtime_ns == stamp


def test_a_folder_that_is_not_there_is_one_line(tmp_path):
    done = subprocess.run(
        [*COMMAND, str(tmp_path / "out"), "--data", str(tmp_path / "nowhere")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == [
        f"error: {tmp_path / 'nowhere'}: not found; give a folder with real/ and fake/"
    ]
