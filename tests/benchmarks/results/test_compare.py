import math
from dataclasses import replace

import pytest

from benchmarks.results.answer import answers
from benchmarks.results.compare import BETTER, FLOOR, SAME, WORSE, compare, lines, weigh
from benchmarks.results.schema import Row
from edge_runtime.errors import UsageError


@pytest.mark.parametrize("seed", range(8))
def test_two_runs_of_the_same_code_show_no_difference(make_report, seed):
    found = compare(make_report(seed=seed), make_report(seed=100 + seed))
    assert not found.worse
    assert not found.better
    assert next(iter(lines(found))).startswith("No difference beyond the noise in")


@pytest.mark.parametrize("seed", range(8))
def test_a_delay_of_ten_percent_is_found(make_report, seed):
    found = compare(make_report(seed=seed), make_report(seed=100 + seed, slower=1.1))
    slower = {(change.case, change.figure) for change in found.worse}
    for precision in ("fp32", "fp16", "int8"):
        for mode in ("latency", "throughput"):
            assert (f"resnet50/runtime/{precision}/CPU/{mode}/native", "end_to_end_fps") in slower
    assert not [change for change in found.worse if change.figure == "rss_peak_mb"]


def test_what_got_faster_is_better_and_no_regression(make_report):
    found = compare(make_report(slower=1.1), make_report(seed=9))
    assert found.better
    assert all(change.case.split("/")[1] == "article" for change in found.worse)


def test_a_delay_within_a_wide_spread_is_not_called_a_change(make_report):
    found = compare(make_report(spread=0.3), make_report(seed=7, spread=0.3, slower=1.1))
    assert not found.worse


def test_a_sure_but_tiny_difference_is_not_called_a_change():
    rounds = [100.0, 100.001, 99.999, 100.0, 100.0005]
    change = weigh("a", "model_fps", rounds, [value * (1 - FLOOR / 2) for value in rounds], math.log1p(FLOOR))
    assert change.p == 1.0
    assert change.high < 1.0


def test_a_machine_that_is_itself_slower_is_not_held_against_the_code(make_report):
    before, after = make_report(), make_report(seed=9, slower=1.1)
    slow = replace(after, rows=tuple(with_pace(row, 88.0) for row in after.rows))

    found = compare(before, slow)

    assert found.pace == pytest.approx(0.88, abs=0.02)
    assert not found.worse
    assert any("the machine's own pace: -1" in line for line in lines(found))


def with_pace(row: Row, pace: float) -> Row:
    return replace(row, rounds=tuple({**figures, "pace": pace} for figures in row.rounds))


def test_rounds_without_any_spread_divide_by_nothing(make_report):
    same = [200.0] * 5
    assert weigh("a", "rss_peak_mb", same, same, math.log1p(FLOOR)).ratio == 1.0
    assert weigh("a", "rss_peak_mb", same, [220.0] * 5, math.log1p(FLOOR)).p < 1e-6


def test_less_than_three_rounds_are_not_judged(make_report):
    report = make_report(rounds=2, accuracies=())
    with pytest.raises(UsageError, match="no case in common"):
        compare(report, report)


def test_a_lost_auc_is_a_regression_although_nothing_got_slower(make_report):
    worse_auc = {"fp32": 0.95, "fp16": 0.95, "int8": 0.90}
    found = compare(make_report(), make_report(seed=3, auc=worse_auc))
    assert [(change.case, change.figure, change.verdict) for change in found.worse] == [
        ("resnet50/int8/CPU/native", "auc", WORSE)
    ]
    assert "AUC 0.948 → 0.900" in "\n".join(lines(found))


def test_auc_of_other_faces_is_not_compared(make_report):
    other = make_report(seed=3, auc={"fp32": 0.8}, data={"faces": 200, "shown": 32, "fingerprint": "ef" * 32})
    assert not [change for change in compare(make_report(), other).changes if change.figure == "auc"]


def test_golden_pictures_that_come_out_wrong_now_are_a_regression(make_report):
    after = make_report(seed=3)
    wrong = tuple(replace(accuracy, golden="wrong (logits within 3)") for accuracy in after.accuracies)
    found = compare(make_report(), replace(after, accuracies=wrong))
    assert {change.figure for change in found.worse} == {"golden"}


def test_different_machines_are_not_compared(make_report, circumstances):
    elsewhere = make_report(circumstances=replace(circumstances, processor="Intel(R) Celeron(R) N5105 (4 cores)"))
    with pytest.raises(UsageError, match="different machines"):
        compare(make_report(), elsewhere)


def test_times_of_an_emulator_are_not_compared(make_report, circumstances):
    twin = make_report(circumstances=replace(circumstances, emulator="qemu-x86_64 -cpu Snowridge"))
    with pytest.raises(UsageError, match="emulator"):
        compare(make_report(), twin)


def test_what_ran_differently_is_told_beside_the_figures(make_report, circumstances):
    packages = {**circumstances.packages, "openvino": "2027.1.0"}
    after = make_report(seed=3, circumstances=replace(circumstances, packages=packages, governor="powersave"))
    told = "\n".join(lines(compare(make_report(), after)))
    assert "differs: packages:" in told
    assert "openvino 2027.1.0" in told
    assert "differs: governor:" in told


def test_what_the_second_report_has_no_more_is_worse(make_report):
    found = compare(make_report(isas=("native", "sse42")), make_report(seed=2))
    assert found.worse
    assert all(change.figure == "runs" and change.case.endswith("/sse42") for change in found.worse)


def test_what_only_the_second_report_has_is_named_and_no_regression(make_report):
    found = compare(make_report(), make_report(seed=2, isas=("native", "sse42")))
    assert found.only_after
    assert not found.worse


def test_a_case_or_an_accuracy_that_failed_in_the_second_report_is_worse_with_its_reason(make_report):
    after = make_report(seed=3)
    rows = tuple(failed(row) if row.case.precision == "int8" else row for row in after.rows)
    accuracies = tuple(replace(a, failed="out of memory") if a.precision == "int8" else a for a in after.accuracies)
    found = compare(make_report(), replace(after, rows=rows, accuracies=accuracies))
    assert [change.case for change in found.worse] == [
        "resnet50/runtime/int8/CPU/latency/native",
        "resnet50/runtime/int8/CPU/throughput/native",
        "resnet50/int8/CPU/native",
    ]
    told = "\n".join(lines(found))
    assert "runs no longer (died of SIGILL)" in told
    assert "runs no longer (its accuracy: out of memory)" in told


def test_nothing_that_runs_any_more_is_worse_and_not_incomparable(make_report):
    after = make_report(seed=3, accuracies=())
    assert compare(make_report(), replace(after, rows=tuple(map(failed, after.rows)))).worse


def failed(row: Row) -> Row:
    return replace(row, rounds=(), facts={}, failed="died of SIGILL")


def test_a_delay_that_was_put_in_is_told_of(make_report):
    after = make_report(seed=3)
    slowed = replace(after, settings={**after.settings, "delay": 0.1})
    assert "  differs: delay: 0 → 0.1" in lines(compare(make_report(), slowed))
    assert "slowed on purpose, by 10%" in answers(slowed)[0]


def test_more_memory_and_a_later_first_verdict_are_worse():
    old, floor = [100.0, 101.0, 99.0, 100.0], math.log1p(FLOOR)
    for figure in ("rss_peak_mb", "first_verdict_s"):
        assert weigh("a", figure, old, [1.5 * value for value in old], floor).p < 0.01
    assert {BETTER, WORSE, SAME} == {"better", "worse", "no difference"}
