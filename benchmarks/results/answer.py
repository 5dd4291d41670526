"""The first lines of a report: which precision on which device to use, how much faster it is, and what it costs."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from benchmarks.measure.cases import STEADY, Case, EngineKind, Mode
from benchmarks.results.schema import Accuracy, Report, Row, Spread

SPEED = "end_to_end_fps"


def answers(report: Report) -> tuple[str, ...]:
    """Return the first lines of a report: warnings, then one line per question."""
    isas = list(dict.fromkeys(row.case.isa for row in report.rows)) or ["native"]
    recommended = _recommended(report, isas[0])
    lines = [*warnings(report), *(_recommendation(report, row) for row in recommended)]
    for isa in isas[1:]:
        parts = []
        for row in _recommended(report, isa):
            fp32 = fp32_row(report, row.case)
            ratio = f", {times(speedup(row, fp32))} FP32" if fp32 is not None and fp32.case != row.case else ""
            parts.append(f"{row.case.bundle} {row.case.precision.upper()} {figure(row, SPEED)} frames/s{ratio}")
        if parts:
            place = report.place(isa)
            lines.append(f"{place[:1].upper()}{place[1:]}: {'; '.join(parts)}.")
    return (*lines, *_compare_backbones(report, recommended))


def warnings(report: Report) -> Iterator[str]:
    """Yield what makes a report's figures doubtful: load, pace, heat, an interruption, faces it was trained on."""
    load = report.foreign_load
    if report.circumstances.emulator:
        yield f"Run under {report.circumstances.emulator.split()[0]}: times mean nothing, accuracy counts."
    elif report.busy and load is not None:
        yield (
            f"The machine was busy: other processes used {load.median:.0%} of it (median; up to {load.high:.0%}). "
            "Compare figures within this report only; for absolute figures measure again on a quiet machine."
        )
    paces = [pace for row in report.rows for pace in row.values("pace")]
    slow, fast = np.percentile(paces, (10, 90)) if paces else (1.0, 1.0)
    if fast > STEADY * slow:
        yield (
            f"The machine's own pace varied, mostly between {slow:.0f} and {fast:.0f} GFLOP/s: a ratio can be off by "
            "as much. Look at the spreads, and measure again when the machine is steady."
        )
    if hot := [row for row in report.rows if sum(row.values("throttled")) > 0]:
        yield (
            f"Heat throttled the machine in {len(hot)} of {len(report.rows)} cases (first in {hot[0].case}): better "
            "cooling would make it faster."
        )
    if report.settings.delay:
        yield f"Every frame was slowed on purpose by {report.settings.delay:.0%}: these are not this machine's figures."
    if not report.complete:
        yield "The run was interrupted: some cases were not measured."
    yield from trained_on(report)
    if any(bundle.demo for bundle in report.bundles):
        yield "Includes a demonstration model of drawn faces: its accuracy says nothing about photographs."


def trained_on(report: Report) -> Iterator[str]:
    """Yield a warning for each bundle whose model was trained on faces of the report's data."""
    for name, count in report.data.trained.items():
        if count:
            yield f"{name} was trained on {count} of the {report.data.faces} faces: its accuracy here is too high."


def best(report: Report, bundle: str, isa: str) -> Row | None:
    """Return a bundle's fastest row from file to verdict whose network is not refused."""
    rows = report.find(engine=EngineKind.RUNTIME, bundle=bundle, isa=isa, mode=Mode.THROUGHPUT)
    accuracies = [report.accuracy(row.case) for row in rows]
    limit = report.settings.max_auc_loss
    return fastest_row(row for row, a in zip(rows, accuracies, strict=True) if not (a and a.reason_to_refuse(limit)))


def fastest_row(rows: Iterable[Row]) -> Row | None:
    """Return the row that is fastest from file to verdict, by its ratios to the first one round by round."""
    rows = [row for row in rows if row.values(SPEED)]
    return max(rows, key=lambda row: speedup(row, rows[0]).median, default=None)


def _recommended(report: Report, isa: str) -> list[Row]:
    return [row for bundle in report.bundles if (row := best(report, bundle.name, isa))]


def fastest(report: Report) -> Case | None:
    """Return the fastest recommended case of all bundles, on the first instruction set."""
    isa = next((row.case.isa for row in report.rows), "native")
    row = fastest_row(_recommended(report, isa))
    return row.case if row else None


def _recommendation(report: Report, row: Row) -> str:
    case = row.case
    parts = [f"{case.precision.upper()} on {case.device}: {figure(row, SPEED)} frames/s from file to verdict"]
    fp32 = fp32_row(report, case)
    if fp32 is not None and fp32.case != case:
        parts.append(f"{times(speedup(row, fp32))} FP32")
    article = article_row(report, case)
    if article is not None:
        parts.append(f"{times(speedup(row, article))} the article's loop")
    ceiling = _same(report, case, engine=EngineKind.CEILING)
    if ceiling is not None:
        share = speedup(row, ceiling, "model_fps")
        parts.append(f"{share.median:.0%} of benchmark_app's frames/s in the network alone")
    parts.append(_cost(report.accuracy(case)))
    where = "" if case.isa == "native" else f" ({report.place(case.isa)})"
    return f"{case.bundle}{where}: take {', '.join(parts)}."


def _cost(accuracy: Accuracy | None) -> str:
    if accuracy is None or accuracy.auc is None:
        return "accuracy not measured"
    if accuracy.auc_change is None:
        return f"AUC {accuracy.auc:.3f}"
    change = accuracy.auc_change
    interval = f"{change['value']:+.3f}, {change['low']:+.3f} to {change['high']:+.3f}"
    return f"AUC {accuracy.auc:.3f} ({interval} against FP32)".replace("-", "−")


def _compare_backbones(report: Report, rows: Sequence[Row]) -> Iterator[str]:
    aucs = {row.case: a.auc for row in rows if (a := report.accuracy(row.case)) and a.auc is not None}
    known = [row for row in rows if row.case in aucs]
    fast, accurate = fastest_row(known), max(known, key=lambda row: aucs[row.case], default=None)
    if len(known) < 2 or fast is None or accurate is None:
        return
    if fast is accurate:
        yield f"{fast.case.bundle} is the fastest and the most accurate of these backbones: take it."
        return
    yield " ".join(
        f"{word}: {row.case.bundle} ({figure(row, SPEED)} frames/s, AUC {aucs[row.case]:.3f})."
        for word, row in (("Fastest", fast), ("Most accurate", accurate))
    )


def _same(report: Report, case: Case, **changes: object) -> Row | None:
    wanted = {"bundle": case.bundle, "isa": case.isa, "engine": case.engine, "precision": case.precision}
    wanted |= {"device": case.device, "mode": case.mode}
    return next(iter(report.find(**(wanted | changes))), None)


def fp32_row(report: Report, case: Case) -> Row | None:
    """Return the row of the same bundle's FP32 network on the CPU in the same mode."""
    return _same(report, case, precision="fp32", device="CPU")


def article_row(report: Report, case: Case) -> Row | None:
    """Return the row of the article's loop with the same bundle's network."""
    return _same(report, case, engine=EngineKind.ARTICLE, precision="fp32", device="CPU", mode=Mode.LATENCY)


def speedup(row: Row, other: Row, figure: str = SPEED) -> Spread:
    """Return how many times as fast `row` was as `other`, round by round, so that what slows both cancels out."""
    pairs = zip(row.values(figure), other.values(figure))  # noqa: B905  (an interrupted round may have only one)
    spread = Spread.of([mine / theirs for mine, theirs in pairs])
    return spread or Spread(float("nan"), float("nan"), float("nan"))


def times(spread: Spread) -> str:
    """Return a ratio in words, with its spread."""
    if f"{spread.low:.1f}" == f"{spread.high:.1f}":
        return f"{spread.median:.1f} times"
    return f"{spread.median:.1f} times ({spread.low:.1f}–{spread.high:.1f})"


def figure(row: Row, name: str) -> str:
    """Return a figure's median with three significant digits."""
    value = row.median(name)
    return "–" if value is None else number(value)


def number(value: float) -> str:
    """Return three significant digits: 0.123, 1.23, 12.3, 123, 1234."""
    digits = 3 if abs(value) < 1 else 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:.{digits}f}"
