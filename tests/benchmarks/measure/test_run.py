import importlib.util
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from benchmarks.measure import accuracy
from benchmarks.measure import run as module
from benchmarks.measure.accuracy import Judgement, choose_test_faces, summarize
from benchmarks.measure.cases import EngineKind, Mode, Round
from benchmarks.measure.plan import Plan, list_cases, name_bundles, picture_files
from benchmarks.measure.run import Run
from benchmarks.options import Options
from benchmarks.results.answer import answers
from benchmarks.results.schema import Accuracy, GoldenState, Report
from benchmarks.studies.small import write_small_bundle
from edge_runtime.errors import DeviceError, UsageError
from edge_runtime.judging.decide import fake_scores
from edge_runtime.model.bundle import Bundle
from edge_runtime.model.contract import Calibration, QualityGroup
from export.bundle.files import write_manifest
from train.commands.shards import write_shards
from train.data.build import load_data
from train.data.splits import group_faces
from train.evaluation.evaluation import open_subject
from train.evaluation.logits import face_qualities
from train.evaluation.training_faces import face_mark, write_training_faces

OPTIONS = Options(data=Path("faces"), out=Path("out"), rounds=2, seconds=0.05, frames=6, baselines=False)


@pytest.fixture(scope="module")
def plan(bundle, faces) -> Plan:
    return Plan(OPTIONS, {"tiny": bundle}, choose_test_faces(load_data(faces), None), fingerprint="ab")


def with_options(plan: Plan, **changes) -> Plan:
    return replace(plan, options=replace(plan.options, **changes.pop("options", {})), **changes)


@pytest.fixture(scope="module")
def report(plan, circumstances) -> Report:
    """A real run of the tiny bundle, native and capped."""
    run = Run(with_options(plan, options={"isa": ["native", "sse42"], "rounds": 1}), circumstances)
    run.measure_rounds()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accuracy, "RESAMPLES", 20)
        run.measure_accuracy()
    return run.report()


@pytest.mark.slow
def test_real_run_measures_every_case(report):
    keys = {(r.case.precision, r.case.mode.value, r.case.isa) for r in report.rows if r.rounds and not r.failed}
    assert keys == {(p, m, i) for p in ("fp32", "fp16") for m in ("latency", "throughput") for i in ("native", "sse42")}
    assert all(row.difference is not None and row.difference < 0.02 for row in report.rows)
    assert Report.from_json(report.to_json()).to_json() == report.to_json()


@pytest.mark.slow
def test_capped_case_runs_no_avx_kernel(report):
    capped = [name for row in report.rows if row.case.isa == "sse42" for name in row.facts["kernels"]]
    assert capped
    assert not [name for name in capped if "avx" in name]


@pytest.mark.slow
def test_accuracy_is_compared_with_fp32(report):
    found = {(a.precision, a.isa): a for a in report.accuracies}
    assert found["fp32", "native"].auc_change is None
    assert found["fp16", "native"].auc_change["value"] == pytest.approx(0.0, abs=0.05)
    assert found["fp16", "native"].difference < 0.02
    assert found["fp32", "sse42"].auc == pytest.approx(found["fp32", "native"].auc)
    assert {(a.failed, a.golden) for a in report.accuracies} == {(None, GoldenState.RIGHT)}


@pytest.fixture
def fake_jobs(monkeypatch):
    """Instead of worker processes: FP16 fails, other networks differ from FP32's; returns the cases asked for."""
    asked = []

    def run_job(job, cache):
        asked.append(job.case)
        if job.case.precision == "fp16":
            raise DeviceError("the process was killed by SIGILL")
        logits = [[0.5 if job.case.engine is EngineKind.RUNTIME else 0.7, 0.0]]
        return Round({"end_to_end_fps": 1.0, "foreign_load": 0.0}, {"threads": 1}, logits, [1.0])

    monkeypatch.setattr(module, "run_job", run_job)
    return asked


def test_rounds_are_interleaved(plan, circumstances, fake_jobs):
    Run(plan, circumstances).measure_rounds()
    good = [case for case in fake_jobs if case.precision == "fp32"]
    assert [case.mode for case in good] == [Mode.LATENCY, Mode.THROUGHPUT] * 2


@pytest.mark.parametrize(("again", "pace", "repeated"), [(90.0, 90.0, 1), (50.0, 60.0, 2)])
def test_slow_rounds_are_measured_again(plan, circumstances, monkeypatch, again, pace, repeated):
    """Only round 3, in which the machine was 1.5 times slower; the better of two measurements is kept."""
    paces = iter([90.0] * 6 + [60.0] + [90.0] * 2 + [again] * 10)

    def run_job(job, cache):
        given = next(paces)
        return Round({"end_to_end_fps": given, "pace": given}, {"threads": 1}, latencies_ms=[given])

    monkeypatch.setattr(module, "run_job", run_job)
    run = Run(with_options(plan, options={"rounds": 3}), circumstances, cases=list_cases(plan)[0][:3])
    run.measure_rounds()
    run.measure_slow_rounds_again()
    found = run.report()
    assert found.repeated == repeated
    assert [figures["pace"] for figures in found.rows[0].rounds] == [90.0, 90.0, pace]
    assert found.rows[0].latencies_ms == pytest.approx((60 + pace / 3,))


def test_failed_case_is_not_measured_again(plan, circumstances, fake_jobs):
    run = Run(plan, circumstances)
    run.measure_rounds()
    assert [case.precision for case in fake_jobs].count("fp16") == 2
    assert {row.failed for row in run.report().rows if row.case.precision == "fp16"} == {
        "the process was killed by SIGILL"
    }
    assert all(len(row.rounds) == 2 for row in run.report().rows if row.case.precision == "fp32")


def test_interrupted_run_keeps_its_rounds(plan, circumstances, fake_jobs):
    run = Run(plan, circumstances)
    run.measure(run.cases[0])
    assert len(run.report(complete=False).find(precision="fp32")) == 1


def test_baseline_with_another_network_fails(plan, circumstances, fake_jobs):
    plan = with_options(plan, options={"baselines": True, "rounds": 1}, checkpoints={"tiny": Path("best.pth")})
    run = Run(plan, circumstances)
    run.measure_rounds()
    failed = {row.case.engine for row in run.report().rows if row.failed and row.case.precision == "fp32"}
    assert EngineKind.ARTICLE in failed
    assert EngineKind.RUNTIME not in failed


def test_baselines_left_out_have_a_reason(plan, monkeypatch):
    options = {"baselines": True, "isa": ["native", "sse42"]}
    reasons = {item.what: item.why for item in list_cases(with_options(plan, options=options))[1]}
    assert "--checkpoint" in reasons["tiny by the article's loop"]
    assert "ONNX file" in reasons["tiny by ONNX Runtime"]
    assert "capped" in reasons["tiny by ONNX Runtime, workstation, capped to SSE4.2"]
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else find_spec(name))
    reasons = {item.what: item.why for item in list_cases(with_options(plan, options=options))[1]}
    assert reasons["tiny by PyTorch, channels last"] == "torch is not installed"


def test_bootstrap_keeps_identities_together(faces, monkeypatch):
    records = load_data(faces).records
    people = [replace(record, identity=str(index // 4)) for index, record in enumerate(records)]
    generator = np.random.default_rng(0)
    margin = np.asarray([2.0 * record.label - 1.0 for record in records]) + generator.normal(0, 1.5, len(records))
    logits = np.stack([-margin / 2, margin / 2], axis=1).astype(np.float32)
    reference = Judgement(logits + generator.normal(0, 1, logits.shape).astype(np.float32), Calibration())
    groups = []
    for name in ("measure", "paired_bootstrap"):
        function = getattr(accuracy, name)
        monkeypatch.setattr(accuracy, name, lambda *a, f=function, **k: groups.append(k["groups"]) or f(*a, **k))
    network = Accuracy("a", "int8", "CPU", "native")
    summarize(network, people, Judgement(logits, Calibration()), reference)
    assert groups == [group_faces(people)] * 2
    assert len(set(groups[0])) == len(records) / 4


@pytest.fixture
def by_quality(plan, tmp_path) -> Plan:
    """The plan with a bundle whose sharper faces read as fakes in FP32, and all faces as they are in FP16."""
    limit = float(np.median(face_qualities(plan.records, plan.bundles["tiny"].contract)[:, 0]))
    blurred, sharp = QualityGroup(limit, None, None, 1.0, -9.0), QualityGroup(None, None, None, 1.0, 9.0)
    readings = {"fp32": Calibration(groups=(blurred, sharp)), "fp16": Calibration(balanced=0.4)}
    contract = plan.bundles["tiny"].contract.replace(calibrations=readings)
    return replace(plan, bundles={"tiny": Bundle.open(write_small_bundle(tmp_path / "b", contract, tuple(readings)))})


@pytest.mark.slow
def test_accuracy_is_that_of_the_detector_that_runs(by_quality, circumstances, monkeypatch):
    monkeypatch.setattr(accuracy, "RESAMPLES", 20)
    run = Run(by_quality, circumstances)
    run.measure_accuracy()
    labels, calls = np.array([record.label for record in by_quality.records]), []
    for found in run.report().accuracies:
        subject = open_subject(by_quality.bundles["tiny"].path, precision=found.precision)
        scores = fake_scores(subject.logits(by_quality.records, None, None), subject.calibration)
        calls.append(scores >= subject.calibration.balanced)
        assert found.figures["accuracy"]["value"] == pytest.approx(np.mean(calls[-1] == labels))
        assert found.auc == pytest.approx(roc_auc_score(labels, scores))
    assert [found.changed for found in run.report().accuracies] == [None, np.count_nonzero(calls[0] != calls[1])]
    assert run.report().accuracies[1].changed > 0
    assert run.report().accuracies[1].difference < 0.02


def test_pictures_in_tar_shards_are_timed(plan, circumstances, faces, tmp_path):
    write_shards(load_data(faces), tmp_path / "shards", 20_000)
    packed = replace(plan, records=load_data(tmp_path / "shards").records)
    run = Run(packed, circumstances)
    run.measure(run.cases[0])
    assert run.row(run.cases[0]).failed is None
    assert run.report().data.shown == len(packed.records)
    files = picture_files(packed.timed, tmp_path)
    assert [Path(path).read_bytes() for path in files] == [face.content() for face in packed.timed]
    assert picture_files(plan.timed, tmp_path) == tuple(str(face.path) for face in plan.timed)


def test_training_faces_in_the_data_are_counted(plan, circumstances, tmp_path):
    folder = tmp_path / "bundle"
    shutil.copytree(plan.bundles["tiny"].path, folder)
    write_training_faces(folder, {face_mark(record) for record in plan.records[:3]})
    write_manifest(folder, plan.bundles["tiny"].contract, "tiny", {})
    knowing = Run(replace(plan, bundles={"tiny": Bundle.open(folder)}), circumstances).report()
    assert knowing.data.trained == {"tiny": 3}
    assert len(answers(knowing)) == 1
    assert not answers(Run(plan, circumstances).report())


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["runs/a"], ["tiny"]),
        (["runs/a", "runs/b"], ["tiny (a)", "tiny (b)"]),
        (["runs/a/detector", "runs/b/detector"], ["tiny (a/detector)", "tiny (b/detector)"]),
    ],
)
def test_bundles_of_one_architecture_are_told_apart(bundle, folders, names):
    assert list(name_bundles([replace(bundle, path=Path(folder)) for folder in folders])) == names


def test_bundle_given_twice_is_refused(bundle):
    with pytest.raises(UsageError, match="twice"):
        name_bundles([bundle, bundle])


def test_chosen_faces_are_balanced_and_repeatable(faces):
    catalog = load_data(faces, split="10/0/90")
    chosen = choose_test_faces(catalog, 6)
    assert [record.label for record in chosen].count(1) == 3
    assert chosen == choose_test_faces(catalog, 6)
    assert set(chosen) <= set(catalog.split("test"))
    assert choose_test_faces(catalog, None) == catalog.split("test")
