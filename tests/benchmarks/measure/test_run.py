import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.measure import accuracy
from benchmarks.measure import run as module
from benchmarks.measure.accuracy import choose_pictures
from benchmarks.measure.cases import Case, Engine, Limits, Mode
from benchmarks.measure.children import Done
from benchmarks.measure.run import Plan, Run, cases_of, name_bundles
from benchmarks.results.answer import answers
from benchmarks.results.schema import Accuracy, Report, Row
from edge_runtime.errors import DataError, DeviceError
from edge_runtime.model.bundle import Bundle
from edge_runtime.model.contract import Calibration
from export.bundle.files import write_manifest
from train.data.build import load_data
from train.data.splits import group_faces
from train.evaluation.seen import face_mark, write_training_faces


@pytest.fixture(scope="module")
def plan(bundle, faces) -> Plan:
    records = choose_pictures(load_data(faces), None)
    return Plan({"tiny": bundle}, records, rounds=2, limits=Limits(0.05, 6, 1), baselines=False, fingerprint="ab")


@pytest.fixture(scope="module")
def report(plan, circumstances) -> Report:
    """A real run of the tiny bundle, natively and capped."""
    run = Run(replace(plan, isas=("native", "sse42"), rounds=1), circumstances)
    run.measure_rounds()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accuracy, "RESAMPLES", 20)
        run.measure_accuracy()
    return run.report()


def test_every_network_is_measured_in_both_modes_on_every_instruction_set(report):
    keys = {(r.case.precision, r.case.mode.value, r.case.isa) for r in report.rows if r.rounds and not r.failed}
    assert keys == {(p, m, i) for p in ("fp32", "fp16") for m in ("latency", "throughput") for i in ("native", "sse42")}


def test_a_capped_child_runs_no_avx_kernel(report):
    capped = [name for row in report.rows if row.case.isa == "sse42" for name in row.facts["kernels"]]
    assert capped
    assert not [name for name in capped if "avx" in name]


def test_accuracy_is_measured_and_held_against_fp32(report):
    found = {(a.precision, a.isa): a for a in report.accuracies}
    assert found["fp32", "native"].failed is None
    assert found["fp32", "native"].auc_change is None
    assert found["fp16", "native"].auc_change["value"] == pytest.approx(0.0, abs=0.05)
    assert found["fp16", "native"].difference < 0.02
    assert found["fp32", "sse42"].auc == pytest.approx(found["fp32", "native"].auc)
    assert found["fp32", "native"].golden.startswith("right")


def test_outputs_of_all_rows_are_held_against_fp32(report):
    assert all(row.difference is not None and row.difference < 0.02 for row in report.rows)


def test_a_report_is_the_same_after_its_way_through_json(report):
    assert Report.from_json(report.to_json()).to_json() == report.to_json()


def test_figures_without_what_they_ran_with_are_not_reported():
    case = Case("tiny", Engine.RUNTIME, "fp32", "CPU", Mode.LATENCY, "native")
    with pytest.raises(DataError, match="not reported"):
        Row(case, ({"model_fps": 1.0},), {})


@pytest.fixture
def fake_jobs(monkeypatch):
    """Children that are not started: what was asked is noted, and an answer made up."""
    asked = []

    def run_job(job, cache):
        asked.append(job.case)
        if job.case.precision == "fp16":
            raise DeviceError("the process died of SIGILL")
        result = {"figures": {"end_to_end_fps": 1.0}, "facts": {"threads": 1}, "logits": [], "latencies_ms": [1.0]}
        return Done(result, {"foreign_load": 0.0})

    monkeypatch.setattr(module, "run_job", run_job)
    return asked


def test_rounds_are_interleaved(plan, circumstances, fake_jobs):
    Run(plan, circumstances).measure_rounds()
    good = [case for case in fake_jobs if case.precision == "fp32"]
    assert [case.mode for case in good] == [Mode.LATENCY, Mode.THROUGHPUT] * 2


def test_a_case_that_fails_is_told_of_and_left_alone_the_others_go_on(plan, circumstances, fake_jobs):
    run = Run(plan, circumstances)
    run.measure_rounds()
    assert [case.precision for case in fake_jobs].count("fp16") == 2
    assert len(run.report().failures) == 2
    assert "died of SIGILL" in run.report().failures[0]
    assert all(len(row.rounds) == 2 for row in run.report().rows if row.case.precision == "fp32")


def test_an_interrupted_run_keeps_what_it_has(plan, circumstances, fake_jobs, monkeypatch):
    run = Run(plan, circumstances)
    run.measure(run.cases[0])
    assert len(run.report(complete=False).find(precision="fp32")) == 1


def test_rows_to_compare_with_that_can_not_be_measured_are_named_with_the_reason(plan):
    _, left_out = cases_of(replace(plan, baselines=True, isas=("native", "sse42")))
    reasons = {item.what: item.why for item in left_out}
    assert reasons["tiny by the article's loop"].startswith("no --checkpoint")
    assert reasons["tiny by ONNX Runtime"] == "the bundle holds no ONNX file"
    assert reasons["tiny by ONNX Runtime, workstation, capped to SSE4.2"].startswith("ONNX Runtime can't be capped")


def test_a_package_that_is_not_installed_is_named(plan, monkeypatch):
    monkeypatch.setattr(module, "missing_package", lambda engine: "torch" if engine is Engine.PYTORCH else None)
    _, left_out = cases_of(replace(plan, baselines=True, checkpoints={"tiny": Path("best.pth")}))
    assert ("tiny by PyTorch, channels last", "torch is not installed") in [(x.what, x.why) for x in left_out]


def test_with_a_checkpoint_the_articles_loop_is_measured_one_picture_at_a_time(plan):
    cases, _ = cases_of(replace(plan, baselines=True, checkpoints={"tiny": Path("best.pth")}))
    article = [case for case in cases if case.engine is Engine.ARTICLE]
    assert [(case.mode, case.precision) for case in article] == [(Mode.LATENCY, "fp32")]


def test_a_row_that_ran_another_network_has_failed(plan, circumstances, monkeypatch):
    def run_job(job, cache):
        value = 0.5 if job.case.engine is Engine.RUNTIME else 0.7
        figures = {"end_to_end_fps": 1.0}
        return Done({"figures": figures, "facts": {"a": 1}, "logits": [[value, 0.0]], "latencies_ms": []}, {})

    monkeypatch.setattr(module, "run_job", run_job)
    given = replace(plan, baselines=True, rounds=1, checkpoints={"tiny": Path("best.pth")})
    run = Run(given, circumstances)
    run.measure_rounds()
    assert not run.report().find(engine=Engine.ARTICLE)
    assert any("another network; give the --checkpoint" in line for line in run.report().failures)


def test_faces_of_one_identity_are_drawn_together_in_the_intervals(faces):
    records = load_data(faces).records
    generator = np.random.default_rng(0)
    margin = np.asarray([2.0 * record.label - 1.0 for record in records]) + generator.normal(0, 1.5, len(records))
    logits = np.stack([-margin / 2, margin / 2], axis=1).astype(np.float32)
    exact = (logits + generator.normal(0, 1, logits.shape).astype(np.float32), Calibration())
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        for name in ("measure", "paired_bootstrap"):
            function = getattr(accuracy, name)
            patch.setattr(accuracy, name, lambda *a, f=function, **k: seen.append(k["groups"]) or f(*a, **k))
        people = [replace(record, identity=str(index // 4)) for index, record in enumerate(records)]
        accuracy.summarise(Accuracy("a", "int8", "CPU", "native"), people, logits, Calibration(), exact)
    assert seen == [group_faces(people)] * 2
    assert len(set(seen[0])) == len(records) / 4


def test_faces_that_a_bundle_was_trained_on_are_counted_and_warned_of(plan, circumstances, tmp_path):
    folder = tmp_path / "bundle"
    shutil.copytree(plan.bundles["tiny"].path, folder)
    write_training_faces(folder, {face_mark(record) for record in plan.records[:3]})
    write_manifest(folder, plan.bundles["tiny"].contract, "tiny", {})
    knowing = Run(replace(plan, bundles={"tiny": Bundle.open(folder)}), circumstances).report()
    assert knowing.data["trained"] == {"tiny": 3}
    assert answers(knowing)[0].startswith(f"tiny was trained on 3 of the {len(plan.records)} faces")
    assert not answers(Run(plan, circumstances).report())


def test_two_bundles_of_one_architecture_are_told_apart_by_their_folders(bundle):
    other = replace(bundle, path=bundle.path.parent / "other")
    assert set(name_bundles([bundle, other])) == {"tiny (tiny)", "tiny (other)"}
    assert set(name_bundles([bundle])) == {"tiny"}


def test_few_faces_are_half_real_half_fake_and_the_same_every_time(faces):
    catalog = load_data(faces, split="10/0/90")
    chosen = choose_pictures(catalog, 6)
    assert [record.label for record in chosen].count(1) == 3
    assert chosen == choose_pictures(catalog, 6)
    assert set(chosen) <= set(catalog.split("test"))
    assert choose_pictures(catalog, None) == catalog.split("test")
