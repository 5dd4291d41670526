"""The whole demo once, with a small network that learns nothing."""

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
    # The tiny model may miss the INT8 gate; then the last line says so.
    problem = done.stdout.strip().splitlines()[-1].startswith("not everything went well: ")
    assert done.returncode == int(problem), done.stdout + done.stderr
    return out, done


def results(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_demo_ends_with_a_table_and_next_steps(first):
    out, done = first
    for text in ("FP32", "demonstration model", f"bundle  {out / 'detector'}", "edge-detect --camera 0"):
        assert text in done.stdout
    assert f"report  {out / 'benchmark' / 'report.html'}" in done.stdout


def test_bundle_is_a_demonstration(first):
    bundle = Bundle.open(first[0] / "detector")
    assert bundle.contract.demo
    assert bundle.contract.architecture == TINY.arch
    assert {precision.value for precision in bundle.precisions} >= {"fp32", "fp16"}


def test_every_picture_and_frame_is_judged(first):
    out, _ = first
    pictures, frames = results(out / "pictures.jsonl"), results(out / "clip.jsonl")
    judged = [line for line in pictures if line["state"] == "ok"]
    assert len(judged) == 2 * TINY.shown
    assert all(len(line["faces"]) == 1 for line in judged)
    assert sum(line["state"] == "ok" for line in frames) == round(TINY.clip_s * 15)


def test_report_compares_the_precisions(first):
    lines = summarize(Report.read(first[0] / "benchmark"))
    assert {line.precision for line in lines} >= {"fp32", "fp16"}
    assert all(line.fps and line.latency_ms and line.auc is not None for line in lines)


def test_second_run_skips_all_but_the_verdicts(first):
    out, before = first
    stamp = (out / "run" / "best.pth").stat().st_mtime_ns
    done = subprocess.run([*COMMAND, str(out)], capture_output=True, text=True, check=False)
    assert done.returncode == before.returncode, done.stdout + done.stderr
    assert done.stdout.count("already done") == len(plan_demo(out, None, TINY)) - 2
    assert (out / "run" / "best.pth").stat().st_mtime_ns == stamp
