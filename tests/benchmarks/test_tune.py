from dataclasses import replace

import pytest

from benchmarks import tune as module
from benchmarks.measure.cases import Engine, Mode
from benchmarks.measure.run import Plan
from benchmarks.results.schema import Accuracy, Row
from benchmarks.tune import Wish, candidates, check, choose, profile_of, refusal, still_racing, tune, words
from edge_runtime.errors import UsageError
from edge_runtime.model.contract import Framing, Precision
from edge_runtime.model.profile import find_profile, write_profile

FPS = {("fp32", "latency", 0): 30.0, ("fp32", "throughput", 0): 40.0, ("fp16", "throughput", 1): 80.0}


class FakeRun:
    """A run whose rounds are made up: FPS by setting, a fixed second for each measurement."""

    def __init__(self, plan, accuracies):
        self.plan, self._accuracies = plan, accuracies
        self.cases = candidates(plan)
        self._rows = {case.key: Row(case) for case in self.cases}
        self.clock = 0.0

    def measure_accuracy(self):
        self.clock += 1.0

    def row(self, case):
        return self._rows[case.key]

    def measure(self, case):
        self.clock += 1.0
        fps = FPS.get((case.precision, case.mode.value, case.streams), 20.0)
        figures = {"end_to_end_fps": fps, "end_to_end_p95_ms": 1000 / fps * (2 if case.mode is Mode.THROUGHPUT else 1)}
        row = self._rows[case.key]
        self._rows[case.key] = replace(row, rounds=(*row.rounds, figures), facts={"threads": 1})

    def report(self):
        return self._base

    def tune(self, make_report, wish):
        self._base = make_report(accuracies=self._accuracies)
        return tune(self, wish, now=lambda: self.clock)


def accuracy(precision, auc, change=None, golden="right"):
    figures = {"auc": {"value": auc, "low": auc, "high": auc}}
    loss = None if change is None else {"value": change, "low": change, "high": change}
    return Accuracy("tiny", precision, "CPU", "native", 100, figures, loss, golden=golden)


GOOD = (accuracy("fp32", 0.95), accuracy("fp16", 0.949, -0.001))


@pytest.fixture
def plan(bundle):
    return Plan({"tiny": bundle}, (), baselines=False)


def test_the_fastest_setting_is_chosen(plan, make_report):
    tuned, refused = FakeRun(plan, GOOD).tune(make_report, Wish(60))
    case = tuned.row.case
    assert (case.precision, case.mode, case.streams) == ("fp16", Mode.THROUGHPUT, 1)
    assert not refused


def test_a_device_whose_golden_pictures_are_wrong_is_refused_and_never_measured(plan, make_report):
    run = FakeRun(plan, (accuracy("fp32", 0.95), accuracy("fp16", 0.95, 0.0, golden="wrong (logits within 3)")))
    tuned, refused = run.tune(make_report, Wish(60))
    assert tuned.row.case.precision == "fp32"
    assert not [case for case in run.cases if case.precision == "fp16" and run.row(case).rounds]
    assert "golden" in refused[0].why


def test_a_precision_that_loses_too_much_auc_is_refused(plan, make_report):
    run = FakeRun(plan, (accuracy("fp32", 0.95), accuracy("fp16", 0.93, -0.02)))
    tuned, refused = run.tune(make_report, Wish(60, max_auc_loss=0.01))
    assert tuned.row.case.precision == "fp32"
    assert refused[0].why == "it loses 0.020 of AUC, at most 0.01 is allowed"


def test_with_a_target_the_most_accurate_setting_that_reaches_it_is_chosen(plan, make_report):
    tuned, _ = FakeRun(plan, GOOD).tune(make_report, Wish(60, target_fps=25))
    assert tuned.row.case.precision == "fp32"
    assert tuned.row.case.mode is Mode.LATENCY
    assert tuned.reached


def test_a_target_that_nothing_reaches_is_said_and_the_fastest_is_taken(plan, make_report):
    wish = Wish(60, target_fps=500)
    tuned, _ = FakeRun(plan, GOOD).tune(make_report, wish)
    assert not tuned.reached
    assert tuned.row.case.precision == "fp16"
    assert "less than the 500 frames/s asked for" in words(tuned, wish)


@pytest.mark.parametrize("target", [25, 500])
def test_that_finding_faces_is_not_in_the_times_is_said_of_a_bundle_that_needs_it(plan, make_report, target):
    wish = Wish(60, target_fps=target)
    tuned, _ = FakeRun(plan, GOOD).tune(make_report, wish)
    assert "Finding faces is not part of these times" in words(tuned, wish, Framing.DETECTED)
    assert "Finding faces" not in words(tuned, wish, Framing.WHOLE)


def test_tuning_ends_when_its_time_is_over_but_has_two_rounds(plan, make_report):
    run = FakeRun(plan, GOOD)
    run.tune(make_report, Wish(0.001))
    assert {len(run.row(case).rounds) for case in run.cases} == {2}


def test_settings_that_are_clearly_slower_leave_the_race(plan, make_report):
    run = FakeRun(plan, GOOD)
    run.tune(make_report, Wish(1000))
    assert run.clock < 100
    slow = next(case for case in run.cases if (case.precision, case.mode) == ("fp32", Mode.LATENCY))
    assert len(run.row(slow).rounds) == 2


def test_a_setting_that_is_fast_enough_stays_in_the_race(make_report):
    rows = make_report(fps={"fp32": 40.0, "int8": 100.0}).find(engine=Engine.RUNTIME, mode=Mode.THROUGHPUT)
    assert {case.precision for case in still_racing(rows, None)} == {"int8"}
    assert {case.precision for case in still_racing(rows, 30.0)} == {"fp32", "int8"}


def test_nothing_that_may_be_taken_is_an_error_with_the_reasons(plan, make_report):
    wrong = tuple(accuracy(p, 0.9, golden="wrong (logits within 3)") for p in ("fp32", "fp16"))
    with pytest.raises(UsageError, match="golden pictures come out wrong"):
        FakeRun(plan, wrong).tune(make_report, Wish(60))


def test_of_settings_that_are_equally_fast_the_one_with_less_latency_is_taken(make_report):
    rows = make_report(spread=0.001).find(engine=Engine.RUNTIME, precision="int8")
    quick = min(rows, key=lambda row: row.median("end_to_end_p95_ms"))
    assert choose(make_report(), rows, Wish()).row.case == quick.case


def test_the_profile_is_what_edge_detect_then_finds(plan, make_report, tmp_path, monkeypatch):
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    tuned, _ = FakeRun(plan, GOOD).tune(make_report, Wish(60))
    write_profile(profile_of(plan, tuned))
    found, _ = find_profile(plan.bundles["tiny"])
    assert (found.device, found.precision, found.hint, found.streams) == ("CPU", Precision.FP16, "THROUGHPUT", 1)


def test_what_can_not_be_tuned_is_refused(plan, bundle):
    with pytest.raises(UsageError, match="one bundle"):
        check(replace(plan, bundles={"a": bundle, "b": bundle}), "")
    with pytest.raises(UsageError, match="leave --isa out"):
        check(replace(plan, isas=("sse42",)), "")
    with pytest.raises(UsageError, match="emulator"):
        check(plan, "qemu-x86_64")
    assert check(plan, "") is None


def test_a_network_that_could_not_be_measured_is_refused():
    assert refusal(replace(GOOD[0], failed="GPU: out of memory"), 0.01) == "GPU: out of memory"
    assert module.refusal(GOOD[0], 0.01) is None
