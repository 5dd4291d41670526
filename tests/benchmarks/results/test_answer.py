from dataclasses import replace

import pytest

from benchmarks.measure.cases import EngineKind, Mode
from benchmarks.results.answer import answers, best, fastest, number, speedup
from benchmarks.results.schema import GoldenState, Report, Row
from benchmarks.tune import choose


def with_figure(report: Report, name: str, *values: float) -> Report:
    """Return `report` with a figure set in all rounds, to each of `values` in turn."""
    rounds = [
        tuple({**figures, name: values[number % len(values)]} for number, figures in enumerate(row.rounds))
        for row in report.rows
    ]
    return replace(report, rows=tuple(replace(row, rounds=r) for row, r in zip(report.rows, rounds, strict=True)))


def test_first_line_names_precision_speed_and_cost(make_report):
    (line,) = answers(make_report(spread=0.0001, fps={"fp32": 40.8, "int8": 102.0}))
    for part in ("take INT8 on CPU", "102 frames/s", "2.5 times FP32", "8.5 times the article's", "AUC 0.948"):
        assert part in line


def test_speedup_is_taken_round_by_round(make_report):
    row = make_report().find(engine=EngineKind.RUNTIME, precision="int8", mode=Mode.THROUGHPUT)[0]

    def with_fps(*values):
        return Row(row.case, tuple({"end_to_end_fps": value} for value in values), row.facts)

    found = speedup(with_fps(100.0, 10.0, 50.0), with_fps(50.0, 5.0, 25.0))
    assert (found.median, found.low, found.high) == (2.0, 2.0, 2.0)


def test_fastest_is_chosen_round_by_round(make_report):
    """In its third round INT8 met a slow minute, so its median is below FP32's."""
    speeds = {"fp32": (10.0, 20.0, 30.0), "fp16": (10.0, 20.0, 30.0), "int8": (11.3, 22.6, 15.0)}
    report = make_report()
    rows = tuple(
        replace(row, rounds=tuple({"end_to_end_fps": fps} for fps in speeds[row.case.precision])) for row in report.rows
    )
    report = replace(report, rows=rows)
    assert best(report, "resnet50", "native").case.precision == fastest(report).precision == "int8"
    chosen = choose(report, report.find(engine=EngineKind.RUNTIME, mode=Mode.THROUGHPUT), None)
    assert chosen.row.case.precision == "int8"


def test_inaccurate_or_wrong_network_is_not_recommended(make_report):
    report = make_report(auc={"fp32": 0.95, "fp16": 0.95, "int8": 0.90})
    assert best(report, "resnet50", "native").case.precision != "int8"
    tolerant = replace(report, settings=replace(report.settings, max_auc_loss=0.1))
    assert best(tolerant, "resnet50", "native").case.precision == "int8"
    wrong = tuple(replace(a, golden=GoldenState.WRONG) if a.precision == "int8" else a for a in tolerant.accuracies)
    assert best(replace(tolerant, accuracies=wrong), "resnet50", "native").case.precision != "int8"


@pytest.mark.parametrize(
    ("figure", "values", "part"),
    [
        ("foreign_load", (0.4,), "used 40% of it"),
        ("pace", (90.0, 180.0), "between 90 and 180 GFLOP/s"),
        ("throttled", (3.0,), "in 7 of 7 cases"),
    ],
)
def test_state_of_the_machine_is_warned_of_first(make_report, figure, values, part):
    assert len(answers(make_report())) == 1
    assert part in answers(with_figure(make_report(), figure, *values))[0]


def test_emulated_interrupted_and_slowed_runs_say_so(make_report, circumstances):
    emulated = make_report(circumstances=replace(circumstances, emulator="qemu-x86_64 -cpu Snowridge"))
    assert "qemu-x86_64" in answers(emulated)[0]
    assert "interrupted" in answers(make_report(complete=False))[0]
    report = make_report()
    assert "10%" in answers(replace(report, settings=replace(report.settings, delay=0.1)))[0]
    report = replace(report, bundles=tuple(replace(bundle, demo=True) for bundle in report.bundles))
    assert "demonstration model" in answers(report)[0]


def test_capped_figures_are_the_workstations(make_report):
    lines = answers(make_report(isas=("native", "sse42")))
    assert lines[1].startswith("Workstation, capped to SSE4.2: resnet50 INT8 ")
    assert not any("board" in line for line in lines)


def test_backbones_are_compared(make_report):
    small = "shufflenet_v2_x1_0"
    report = make_report(bundles=("resnet50", small))
    rows = tuple(
        replace(row, rounds=tuple({**f, "end_to_end_fps": 4 * f["end_to_end_fps"]} for f in row.rounds))
        if row.case.bundle == small
        else row
        for row in report.rows
    )
    weaker = {"value": 0.9, "low": 0.89, "high": 0.91}
    accuracies = tuple(
        replace(a, figures={**a.figures, "auc": weaker}) if a.bundle == small else a for a in report.accuracies
    )
    report = replace(report, rows=rows, accuracies=accuracies)
    assert answers(report)[-1].startswith(f"Fastest: {small} (4")
    assert "Most accurate: resnet50 (" in answers(report)[-1]
    assert fastest(report).bundle == small


@pytest.mark.parametrize(("value", "text"), [(0.1234, "0.123"), (1.234, "1.23"), (12.34, "12.3"), (123.4, "123")])
def test_numbers_have_three_significant_digits(value, text):
    assert number(value) == text
