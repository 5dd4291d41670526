from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.measure.cases import EngineKind, Mode
from benchmarks.measure.plan import Plan
from benchmarks.options import Options
from benchmarks.results.schema import Accuracy, GoldenState, Row
from benchmarks.tune import candidates, check, choose, profile_of, still_racing, tune, words
from edge_runtime.errors import UsageError
from edge_runtime.model.contract import Framing, Precision
from edge_runtime.model.profile import find_profile, write_profile

FPS = {("fp32", "latency", 0): 30.0, ("fp32", "throughput", 0): 40.0, ("fp16", "throughput", 1): 80.0}


class FakeRun:
    """A run with made-up rounds: FPS by setting, and one second per measurement."""

    def __init__(self, plan, base):
        self.plan, self.base = plan, base
        self.cases = candidates(plan)
        self.rows = {case.key: Row(case) for case in self.cases}
        self.clock = 0.0

    def measure_accuracy(self):
        self.clock += 1.0

    def row(self, case):
        return self.rows[case.key]

    def measure(self, case):
        self.clock += 1.0
        fps = FPS.get((case.precision, case.mode.value, case.streams), 20.0)
        figures = {"end_to_end_fps": fps, "end_to_end_p95_ms": 1000 / fps * (2 if case.mode is Mode.THROUGHPUT else 1)}
        row = self.rows[case.key]
        self.rows[case.key] = replace(row, rounds=(*row.rounds, figures), facts={"threads": 1})

    def report(self):
        return self.base


def accuracy(precision, auc, change=None, golden=GoldenState.RIGHT, failed=None):
    return Accuracy(
        bundle="tiny",
        precision=precision,
        device="CPU",
        isa="native",
        figures={"auc": {"value": auc, "low": auc, "high": auc}},
        auc_change=None if change is None else {"value": change, "low": change, "high": change},
        golden=golden,
        golden_difference=3.0,
        golden_tolerance=0.01,
        failed=failed,
    )


FP32, FP16 = accuracy("fp32", 0.95), accuracy("fp16", 0.949, -0.001)


@pytest.fixture
def make_plan(bundle):
    def make(minutes=1.0, **options):
        return Plan(Options(data=Path("faces"), out=Path("out"), minutes=minutes, **options), {"tiny": bundle})

    return make


@pytest.fixture
def tuned(make_plan, make_report):
    """Return a function that tunes a fake run and returns it with the choice and what was refused."""

    def make(*accuracies, **options):
        run = FakeRun(make_plan(**options), make_report(accuracies=accuracies or (FP32, FP16)))
        return run, *tune(run, now=lambda: run.clock)

    return make


def test_fastest_setting_is_chosen(tuned):
    _, found, refused = tuned()
    case = found.row.case
    assert (case.precision, case.mode, case.streams) == ("fp16", Mode.THROUGHPUT, 1)
    assert not refused


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (accuracy("fp16", 0.95, 0.0, golden=GoldenState.WRONG), "golden"),
        (accuracy("fp16", 0.93, -0.02), "0.020 of AUC"),
        (accuracy("fp16", 0.95, failed="GPU: out of memory"), "out of memory"),
    ],
)
def test_bad_network_is_refused_and_not_measured(tuned, bad, reason):
    run, found, refused = tuned(FP32, bad)
    assert found.row.case.precision == "fp32"
    assert not [case for case in run.cases if case.precision == "fp16" and run.row(case).rounds]
    assert reason in refused[0].why


def test_target_prefers_accuracy(tuned):
    _, found, _ = tuned(target_fps=25)
    assert (found.row.case.precision, found.row.case.mode, found.reached) == ("fp32", Mode.LATENCY, True)


def test_unreachable_target_gives_the_fastest(tuned):
    run, found, _ = tuned(target_fps=500)
    assert not found.reached
    assert found.row.case.precision == "fp16"
    assert "500" in words(run.plan, found)


@pytest.mark.parametrize("target", [25, 500])
def test_detected_framing_adds_a_warning(tuned, bundle, target):
    run, found, _ = tuned(target_fps=target)
    contract = bundle.contract.replace(framing=Framing.DETECTED)
    detected = replace(bundle, manifest=replace(bundle.manifest, contract=contract))
    plain, warned = words(run.plan, found), words(replace(run.plan, bundles={"tiny": detected}), found)
    assert len(warned) > len(plain)


def test_slow_settings_drop_out_after_two_rounds(tuned):
    run, *_ = tuned(minutes=100)
    assert run.clock < 100
    hurried, *_ = tuned(minutes=0.00001)
    assert {len(hurried.row(case).rounds) for case in hurried.cases} == {2}
    slow = next(case for case in run.cases if (case.precision, case.mode) == ("fp32", Mode.LATENCY))
    assert len(run.row(slow).rounds) == 2


def test_fast_enough_settings_stay(make_report):
    rows = make_report(fps={"fp32": 40.0, "int8": 100.0}).find(engine=EngineKind.RUNTIME, mode=Mode.THROUGHPUT)
    assert {case.precision for case in still_racing(rows, None)} == {"int8"}
    assert {case.precision for case in still_racing(rows, 30.0)} == {"fp32", "int8"}


def test_no_usable_setting_is_an_error(tuned):
    with pytest.raises(UsageError, match="golden"):
        tuned(*(accuracy(p, 0.9, golden=GoldenState.WRONG) for p in ("fp32", "fp16")))


def test_lower_latency_wins_among_equally_fast(make_report):
    rows = make_report(spread=0.001).find(engine=EngineKind.RUNTIME, precision="int8")
    quick = min(rows, key=lambda row: row.median("end_to_end_p95_ms"))
    assert choose(make_report(), rows, None).row.case == quick.case


def test_edge_detect_finds_the_profile(tuned, tmp_path, monkeypatch):
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    run, found, _ = tuned()
    write_profile(profile_of(run.plan, found))
    profile = find_profile(run.plan.bundles["tiny"]).profile
    assert (profile.device, profile.precision) == ("CPU", Precision.FP16)
    assert (profile.hint, profile.streams) == ("THROUGHPUT", 1)


def test_what_can_not_be_tuned_is_refused(make_plan, bundle):
    plan = make_plan()
    assert check(plan, "") is None
    with pytest.raises(UsageError, match="--model"):
        check(replace(plan, bundles={"a": bundle, "b": bundle}), "")
    with pytest.raises(UsageError, match="--isa"):
        check(make_plan(isa=["sse42"]), "")
    with pytest.raises(UsageError, match="emulator"):
        check(plan, "qemu-x86_64")
