import math
from dataclasses import replace

import pytest

from benchmarks.results.compare import FLOOR, Direction, Kind, compare, lines, weigh
from benchmarks.results.schema import GoldenState, Row
from edge_runtime.errors import UsageError


def failed(row: Row) -> Row:
    return replace(row, rounds=(), facts={}, failed="killed by SIGILL")


def with_pace(row: Row, pace: float) -> Row:
    return replace(row, rounds=tuple({**figures, "pace": pace} for figures in row.rounds))


@pytest.mark.parametrize("seed", range(8))
def test_same_code_shows_no_difference(make_report, seed):
    found = compare(make_report(seed=seed), make_report(seed=100 + seed))
    assert not found.worse
    assert not found.better


@pytest.mark.parametrize("seed", range(8))
def test_delay_of_ten_percent_is_found(make_report, seed):
    found = compare(make_report(seed=seed), make_report(seed=100 + seed, slower=1.1))
    slower = {(change.case, change.figure) for change in found.worse}
    for precision in ("fp32", "fp16", "int8"):
        for mode in ("latency", "throughput"):
            assert (f"resnet50/runtime/{precision}/CPU/{mode}/native", "end_to_end_fps") in slower
    assert not [change for change in found.worse if "/article/" in change.case or change.figure == "rss_peak_mb"]
    back = compare(make_report(seed=100 + seed, slower=1.1), make_report(seed=seed))
    assert back.better
    assert not back.worse


def test_delay_within_a_wide_spread_is_no_change(make_report):
    assert not compare(make_report(spread=0.3), make_report(seed=7, spread=0.3, slower=1.1)).worse


def test_tiny_significant_difference_is_no_change():
    rounds = [100.0, 100.001, 99.999, 100.0, 100.0005]
    change = weigh("a", "model_fps", rounds, [value * (1 - FLOOR / 2) for value in rounds], math.log1p(FLOOR))
    assert change.p == 1.0
    assert change.high < 1.0


@pytest.mark.parametrize("figure", ["rss_peak_mb", "first_verdict_s"])
def test_rounds_without_spread_are_compared(figure):
    same = [200.0] * 5
    assert weigh("a", figure, same, same, math.log1p(FLOOR)).ratio == 1.0
    assert weigh("a", figure, same, [220.0] * 5, math.log1p(FLOOR)).p < 1e-6


def test_slower_machine_is_no_regression(make_report):
    after = make_report(seed=9, slower=1.1)
    found = compare(make_report(), replace(after, rows=tuple(with_pace(row, 88.0) for row in after.rows)))
    assert found.pace == pytest.approx(0.88, abs=0.02)
    assert not found.worse


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_impossible_figures_are_left_out(make_report, value):
    after = make_report(seed=9)
    figures = {"pace": value, "model_fps": value, "end_to_end_fps": value}
    rows = tuple(replace(row, rounds=tuple({**f, **figures} for f in row.rounds)) for row in after.rows)
    found = compare(make_report(), replace(after, rows=rows))
    assert "end_to_end_fps" not in {change.figure for change in found.changes}
    assert list(lines(found))


@pytest.mark.parametrize("accuracies", [{}, {"accuracies": ()}])
def test_fewer_than_three_rounds_are_refused(make_report, accuracies):
    report = make_report(rounds=2, **accuracies)
    assert bool(report.accuracies) is not bool(accuracies)
    with pytest.raises(UsageError, match="3 rounds"):
        compare(report, report)


def test_lost_auc_on_the_same_faces_is_a_regression(make_report):
    found = compare(make_report(), make_report(seed=3, auc={"fp32": 0.95, "fp16": 0.95, "int8": 0.90}))
    assert [(change.case, change.kind) for change in found.worse] == [("resnet50/int8/CPU/native", Kind.AUC)]
    assert "AUC 0.948 → 0.900" in "\n".join(lines(found))
    other = make_report(seed=3, auc={"fp32": 0.8})
    other = replace(other, data=replace(other.data, fingerprint="ef" * 32))
    assert not [change for change in compare(make_report(), other).changes if change.kind is Kind.AUC]


def test_wrong_golden_pictures_are_a_regression(make_report):
    after = make_report(seed=3)
    wrong = tuple(replace(accuracy, golden=GoldenState.WRONG) for accuracy in after.accuracies)
    found = compare(make_report(), replace(after, accuracies=wrong))
    assert {change.kind for change in found.worse} == {Kind.GOLDEN}


@pytest.mark.parametrize(
    "difference", [{"processor": "Intel(R) Celeron(R) N5105 (4 cores)"}, {"emulator": "qemu-x86_64 -cpu Snowridge"}]
)
def test_other_machines_are_refused(make_report, circumstances, difference):
    with pytest.raises(UsageError, match=r"machine|emulator"):
        compare(make_report(), make_report(circumstances=replace(circumstances, **difference)))


def test_differing_circumstances_are_listed(make_report, circumstances):
    packages = {**circumstances.packages, "openvino": "2027.1.0"}
    after = make_report(seed=3, circumstances=replace(circumstances, packages=packages, governor="powersave"))
    after = replace(after, settings=replace(after.settings, delay=0.1))
    found = compare(make_report(), after)
    assert [line.split(":")[0] for line in found.circumstances] == ["governor", "packages", "delay"]
    assert "openvino 2027.1.0" in found.circumstances[1]


def test_missing_cases_are_worse_and_new_ones_are_not(make_report):
    native, both = make_report(), make_report(seed=2, isas=("native", "sse42"))
    lost, gained = compare(both, native), compare(native, both)
    assert {(change.kind, change.case.split("/")[-1]) for change in lost.worse} == {(Kind.LOST, "sse42")}
    assert gained.only_after
    assert not gained.worse


def test_failed_cases_and_accuracies_are_worse(make_report):
    after = make_report(seed=3)
    rows = tuple(failed(row) if row.case.precision == "int8" else row for row in after.rows)
    accuracies = tuple(replace(a, failed="out of memory") if a.precision == "int8" else a for a in after.accuracies)
    found = compare(make_report(), replace(after, rows=rows, accuracies=accuracies))
    assert [(change.case, change.reason) for change in found.worse] == [
        ("resnet50/runtime/int8/CPU/latency/native", "killed by SIGILL"),
        ("resnet50/runtime/int8/CPU/throughput/native", "killed by SIGILL"),
        ("resnet50/int8/CPU/native", "its accuracy: out of memory"),
    ]
    assert {change.direction for change in found.worse} == {Direction.WORSE}
    empty = make_report(seed=3, accuracies=())
    assert compare(make_report(), replace(empty, rows=tuple(map(failed, empty.rows)))).worse
