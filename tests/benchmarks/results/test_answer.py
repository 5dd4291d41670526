from dataclasses import replace

import pytest

from benchmarks.measure.cases import Engine, Mode
from benchmarks.results.answer import answers, best, fastest, number, speedup
from benchmarks.results.schema import Row


def test_the_first_line_says_what_to_take_how_much_faster_it_is_and_what_it_costs(make_report):
    (line,) = answers(make_report(spread=0.0001, fps={"fp32": 40.8, "int8": 102.0}))
    assert line == (
        "resnet50: take INT8 on CPU: 102 frames/s from file to verdict, 2.5 times FP32, 8.5 times the article's loop, "
        "AUC 0.948 (−0.002, −0.004 to −0.000 against FP32)."
    )


def test_a_speedup_is_taken_round_by_round_so_that_what_slows_both_cancels_out(make_report):
    row = make_report().find(engine=Engine.RUNTIME, precision="int8", mode=Mode.THROUGHPUT)[0]

    def with_fps(*values):
        return Row(row.case, tuple({"end_to_end_fps": value} for value in values), row.facts)

    found = speedup(with_fps(100.0, 10.0, 50.0), with_fps(50.0, 5.0, 25.0))
    assert (found.median, found.low, found.high) == (2.0, 2.0, 2.0)


def test_a_precision_that_loses_too_much_is_not_recommended(make_report):
    report = make_report(auc={"fp32": 0.95, "fp16": 0.95, "int8": 0.90})
    assert best(report, "resnet50", "native").case.precision != "int8"
    tolerant = replace(report, settings={**report.settings, "max_auc_loss": 0.1})
    assert best(tolerant, "resnet50", "native").case.precision == "int8"
    assert answers(tolerant)[0].startswith("resnet50: take INT8")


def test_a_network_with_wrong_golden_pictures_is_not_recommended(make_report):
    report = make_report()
    accuracies = tuple(replace(a, golden="wrong (by 3)") if a.precision == "int8" else a for a in report.accuracies)
    assert best(replace(report, accuracies=accuracies), "resnet50", "native").case.precision != "int8"


def test_a_busy_machine_is_said_first(make_report):
    report = make_report()
    rows = tuple(replace(row, rounds=tuple({**f, "foreign_load": 0.4} for f in row.rounds)) for row in report.rows)
    assert answers(replace(report, rows=rows))[0].startswith("The machine was busy: others used 40% of it")


def test_a_machine_that_changes_its_pace_is_said_to(make_report):
    report = make_report()
    assert not any("pace" in line for line in answers(report))
    rows = tuple(
        replace(
            row, rounds=tuple({**figures, "pace": 90.0 * (1 + number % 2)} for number, figures in enumerate(row.rounds))
        )
        for row in report.rows
    )
    assert "between 90 and 180 GFLOP/s" in answers(replace(report, rows=rows))[0]


def test_times_of_the_twin_are_said_to_mean_nothing_first(make_report, circumstances):
    twin = make_report(circumstances=replace(circumstances, emulator="qemu-x86_64 -cpu Snowridge"))
    assert answers(twin)[0] == "Run under qemu-x86_64: its times mean nothing, its accuracy counts."


def test_a_capped_answer_is_the_workstations_never_the_boards(make_report):
    lines = answers(make_report(isas=("native", "sse42")))
    assert lines[1].startswith("Workstation, capped to SSE4.2: resnet50 INT8 ")
    assert not any("board" in line for line in lines)


def test_several_backbones_are_held_against_each_other(make_report):
    report = make_report(bundles=("resnet50", "shufflenet_v2_x1_0"))
    quick = tuple(
        replace(row, rounds=tuple({**f, "end_to_end_fps": 4 * f["end_to_end_fps"]} for f in row.rounds))
        if row.case.bundle.startswith("shuffle")
        else row
        for row in report.rows
    )
    weaker = tuple(
        replace(a, figures={**a.figures, "auc": {"value": 0.9, "low": 0.89, "high": 0.91}})
        if a.bundle.startswith("shuffle")
        else a
        for a in report.accuracies
    )
    report = replace(report, rows=quick, accuracies=weaker)
    assert answers(report)[-1].startswith("Fastest: shufflenet_v2_x1_0 (4")
    assert "Most accurate: resnet50 (" in answers(report)[-1]
    assert fastest(report).bundle == "shufflenet_v2_x1_0"


def test_a_demonstration_model_is_named_as_one(make_report):
    report = make_report()
    report = replace(report, bundles=tuple(replace(bundle, demo=True) for bundle in report.bundles))
    assert "demonstration model" in answers(report)[0]


def test_an_interrupted_run_says_so(make_report):
    assert answers(make_report(complete=False))[0].startswith("The run was interrupted")


@pytest.mark.parametrize(("value", "text"), [(0.1234, "0.123"), (1.234, "1.23"), (12.34, "12.3"), (123.4, "123")])
def test_figures_have_three_digits_that_count(value, text):
    assert number(value) == text
