"""Accuracy against speed of networks that were trained already: INT8, capped to SSE4.2, in one interleaved run."""

import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.measure.cases import Case, Mode
from benchmarks.measure.circumstances import Circumstances
from benchmarks.measure.plan import Plan, make_plan
from benchmarks.measure.run import Advance, Run
from benchmarks.options import Options
from benchmarks.results import plots
from benchmarks.results.answer import speedup, warnings
from benchmarks.results.report import JSON, spread_text
from benchmarks.results.schema import Report, Row
from edge_runtime.atomic import write_atomic
from edge_runtime.errors import UsageError
from edge_runtime.model.bundle import Bundle
from edge_runtime.model.contract import Precision
from train.report.html import Block, Picture, Section, Table, figure_text, write_report

ISA, SPEED = "sse42", "model_fps"

PUBLISHED = {"CPU": 18.0, "GPU": 42.0}
"""ResNet-50 at 224 on an N5105 in frames/s: CPU INT8 and GPU FP16. Not measured by us, but scaled by clock and units
from Intel's table for the Atom X6425E, which has the same cores (OpenVINO 2024.3: 19.86 and 52.54)."""

GPU_EXPONENT = math.log(227 / 52.54) / math.log(134 / 19.86)
"""How much of a gain on the CPU a GPU keeps: between ResNet-50 and MobileNet-v2 in the same table (134 and 227)."""


@dataclass(frozen=True)
class Point:
    """One network.

    Attributes:
        input_size: pixels a side.
        row: its rounds, the network alone.
        aucs: {value, low, high} by data set.
        ratio: how many times as fast as ResNet-50 at 224, round by round; None without it, or without rounds.
    """

    name: str
    input_size: int
    row: Row
    aucs: Mapping[str, Mapping[str, float]]
    ratio: float | None

    def estimate(self, device: str) -> float | None:
        """Return the frames/s that an N5105's CPU (INT8) or GPU (FP16) may reach; an estimate from published rates."""
        if self.ratio is None:
            return None
        return PUBLISHED[device] * (self.ratio if device == "CPU" else self.ratio**GPU_EXPONENT)


def int8_case(name: str) -> Case:
    """Return the case that is measured of the bundle called `name` in the report."""
    return Case(name, Precision.INT8.value, Mode.THROUGHPUT, isa=ISA)


def measure_frontier(data: Sequence[Path], options: Options, advance: Advance) -> tuple[Report, list[Point]]:
    """Measure the bundles of `options` on every data set; return the first one's report and a point for each bundle.

    Raises:
        EdgeError: a bundle or data set can't be used, or a bundle has no INT8 network.
    """
    around = Circumstances.here(shlex.join(["edge-benchmark", *sys.argv[1:]]))
    reports: dict[str, Report] = {}
    for folder in dict.fromkeys(data):
        plan = make_plan(replace(options, data=folder))
        for bundle in plan.bundles.values():
            bundle.model(Precision.INT8)
        run = Run(plan, around, cases=[int8_case(name) for name in plan.bundles], advance=advance)
        if not reports:
            run.measure_rounds()
            run.measure_slow_rounds_again()
        run.measure_accuracy()
        reports[str(folder)] = run.report()
    report = next(iter(reports.values()))
    if failures := [line for found in reports.values() for line in found.failures]:
        raise UsageError(f"{failures[0]}; leave that bundle out")
    return report, points(plan, report, reports)


def points(plan: Plan, report: Report, reports: Mapping[str, Report]) -> list[Point]:
    """Return a point for each bundle of `plan`, the fastest first, those without rounds last.

    `report` has the rounds, `reports` the accuracy.
    """
    rows = {row.case.bundle: row for row in report.rows}
    reference = next((rows[name] for name, bundle in plan.bundles.items() if is_reference(bundle)), None)

    def point(name: str, bundle: Bundle) -> Point:
        found = {data: measured.accuracy(int8_case(name)) for data, measured in reports.items()}
        ratio = speedup(rows[name], reference, SPEED).median if reference else math.nan
        return Point(
            name=name,
            input_size=bundle.contract.input_size,
            row=rows[name],
            aucs={data: accuracy.figures["auc"] for data, accuracy in found.items() if accuracy},
            ratio=None if math.isnan(ratio) else ratio,
        )

    def place(one: Point) -> tuple[bool, float]:
        ratio = speedup(one.row, found[0].row, SPEED).median
        return math.isnan(ratio), -ratio

    found = [point(name, bundle) for name, bundle in plan.bundles.items()]
    return sorted(found, key=place)


def is_reference(bundle: Bundle) -> bool:
    """Return whether the published rates are for this network: ResNet-50 at 224 pixels."""
    return (bundle.contract.architecture, bundle.contract.input_size) == ("resnet50", 224)


def table(found: Sequence[Point]) -> Table:
    """Return the points as a table."""

    def cells(point: Point) -> tuple[Any, ...]:
        aucs = (figure_text(dict(auc)) for auc in point.aucs.values())
        ratio = "–" if point.ratio is None else f"{point.ratio:.2f}"
        estimates = (point.estimate(device) for device in PUBLISHED)
        guesses = ("–" if rate is None else f"≈ {rate:.0f}" for rate in estimates)
        return (point.name, point.input_size, *aucs, spread_text(point.row.spread(SPEED)), ratio, *guesses)

    head = ("network", "input, pixels", *(f"AUC, {data}" for data in found[0].aucs), "INT8 capped to SSE4.2, frames/s")
    head += ("times ResNet-50 at 224", "estimate: N5105 CPU INT8", "estimate: N5105 GPU FP16")
    caption = (
        "The network alone on this workstation, median over the rounds (minimum–maximum); ratios round by round. The "
        "estimates are not measured: published rates of ResNet-50 times the ratio, for the GPU to the power of "
        f"{GPU_EXPONENT:.2f}. Without ResNet-50 at 224 in the run there are none."
    )
    return Table(head, [cells(point) for point in found], caption)


def write_frontier(report: Report, found: Sequence[Point], out: Path) -> list[str]:
    """Write frontier.html, .md and .png and the run's report.json into `out`; return the table's lines."""
    out.mkdir(parents=True, exist_ok=True)
    rates = [(p.name, p.row.median(SPEED) or 0.0, next(iter(p.aucs.values()))) for p in found]
    picture = plots.png(plots.frontier(rates))
    (out / "frontier.png").write_bytes(picture)
    write_atomic(out / JSON, report.to_json())
    blocks: list[Block] = [*warnings(report), Picture(picture, "AUC against frames/s"), table(found)]
    write_report(out / "frontier.html", "Accuracy against speed", [Section("The networks", blocks)])
    return (out / "frontier.md").read_text(encoding="utf-8").splitlines()[2:]
