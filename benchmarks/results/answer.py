"""The answer in words: which precision on which device, how much faster, and what it costs in accuracy."""

from collections.abc import Iterator

import numpy as np

from benchmarks.measure.cases import Case, Engine, Mode
from benchmarks.results.schema import Accuracy, Report, Row, Spread

SPEED = "end_to_end_fps"

STEADY = 1.3
"""How many times the machine's own pace may differ between its 10th and 90th percentile without a word."""


def answers(report: Report) -> tuple[str, ...]:
    """Return the first lines of a report: warnings first, then a line a question."""
    return tuple(line for part in (_warnings(report), _choices(report), _backbones(report)) for line in part)


def _warnings(report: Report) -> Iterator[str]:
    load = report.foreign_load
    if report.circumstances.emulator:
        yield f"Run under {report.circumstances.emulator.split()[0]}: its times mean nothing, its accuracy counts."
    elif report.busy and load is not None:
        yield (
            f"The machine was busy: others used {load.median:.0%} of it (median; up to {load.high:.0%}). "
            "Compare figures within this report; for absolute ones measure again when it is quiet."
        )
    paces = [pace for row in report.rows for pace in row.values("pace")]
    slow, fast = np.percentile(paces, (10, 90)) if paces else (1.0, 1.0)
    if fast > STEADY * slow:
        yield (
            f"The machine's own pace changed meanwhile, between {slow:.0f} and {fast:.0f} GFLOP/s most of the time: "
            "a ratio can be off by as much. Read the spreads, and measure again when it is steady."
        )
    if hot := [row for row in report.rows if sum(row.values("throttled")) > 0]:
        yield (
            f"The machine was throttled for its heat in {len(hot)} of {len(report.rows)} cases ({hot[0].case} the "
            "first): it would be faster cooled better."
        )
    if delay := report.settings.get("delay"):
        yield f"Every frame was slowed on purpose, by {delay:.0%}: these are no figures of this machine."
    if not report.complete:
        yield "The run was interrupted: what is missing was not measured."
    yield from trained_on(report)
    if any(bundle.demo for bundle in report.bundles):
        yield "A demonstration model of drawn faces is among these: its accuracy says nothing about photographs."


def trained_on(report: Report) -> Iterator[str]:
    """Yield a warning for each bundle whose model was trained on faces of the report's data."""
    for name, count in report.data.get("trained", {}).items():
        if count:
            yield f"{name} was trained on {count} of the {report.data['faces']} faces: its accuracy here is too good."


def _choices(report: Report) -> Iterator[str]:
    first, *others = dict.fromkeys(row.case.isa for row in report.rows) or ["native"]
    for bundle in report.bundles:
        row = best(report, bundle.name, first)
        if row is not None:
            yield _choice(report, row)
    for isa in others:
        found = [row for bundle in report.bundles if (row := best(report, bundle.name, isa))]
        if found:
            yield f"{_capital(report.place(isa))}: {'; '.join(_short(report, row) for row in found)}."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _short(report: Report, row: Row) -> str:
    fp32 = fp32_row(report, row.case)
    more = f", {times(speedup(row, fp32))} FP32" if fp32 is not None and fp32.case != row.case else ""
    return f"{row.case.bundle} {row.case.precision.upper()} {figure(row, SPEED)} frames/s{more}"


def best(report: Report, bundle: str, isa: str) -> Row | None:
    """Return the fastest row of a bundle, file to verdict, that loses little enough AUC and is right on golden."""
    rows = report.find(engine=Engine.RUNTIME, bundle=bundle, isa=isa, mode=Mode.THROUGHPUT)
    fit = [row for row in rows if _is_fit(report.accuracy(row.case), report.max_auc_loss)]
    return max(fit, key=lambda row: row.median(SPEED) or 0.0, default=None)


def fastest(report: Report) -> Case | None:
    """Return the case that is recommended and fastest of all bundles, on the first instruction set."""
    isa = next((row.case.isa for row in report.rows), "native")
    rows = [row for bundle in report.bundles if (row := best(report, bundle.name, isa))]
    return max(rows, key=lambda row: row.median(SPEED) or 0.0).case if rows else None


def _is_fit(accuracy: Accuracy | None, max_auc_loss: float) -> bool:
    if accuracy is None:
        return True
    loss = 0.0 if accuracy.auc_change is None else -accuracy.auc_change["value"]
    return not accuracy.golden.startswith("wrong") and not loss > max_auc_loss


def _choice(report: Report, row: Row) -> str:
    case = row.case
    parts = [f"{case.precision.upper()} on {case.device}: {figure(row, SPEED)} frames/s from file to verdict"]
    fp32 = fp32_row(report, case)
    if fp32 is not None and fp32.case != case:
        parts.append(f"{times(speedup(row, fp32))} FP32")
    article = article_row(report, case)
    if article is not None:
        parts.append(f"{times(speedup(row, article))} the article's loop")
    ceiling = _same(report, case, engine=Engine.CEILING)
    if ceiling is not None:
        share = speedup(row, ceiling, "model_fps")
        parts.append(f"{share.median:.0%} of benchmark_app's ceiling in the network alone")
    parts.append(_cost(report.accuracy(case)))
    where = "" if case.isa == "native" else f" ({report.place(case.isa)})"
    return f"{case.bundle}{where}: take {', '.join(part for part in parts if part)}."


def _cost(accuracy: Accuracy | None) -> str:
    if accuracy is None or accuracy.auc is None:
        return "accuracy not measured"
    if accuracy.auc_change is None:
        return f"AUC {accuracy.auc:.3f}"
    change = accuracy.auc_change
    interval = f"{change['value']:+.3f}, {change['low']:+.3f} to {change['high']:+.3f}"
    return f"AUC {accuracy.auc:.3f} ({interval} against FP32)".replace("-", "−")


def _same(report: Report, case: Case, **changes: object) -> Row | None:
    wanted = {"bundle": case.bundle, "isa": case.isa, "engine": case.engine, "precision": case.precision}
    wanted |= {"device": case.device, "mode": case.mode}
    return next(iter(report.find(**(wanted | changes))), None)


def fp32_row(report: Report, case: Case) -> Row | None:
    """Return the row of the same bundle's FP32 network on the CPU, measured in the same way."""
    return _same(report, case, precision="fp32", device="CPU")


def article_row(report: Report, case: Case) -> Row | None:
    """Return the row of the article's loop with the same bundle's network."""
    return _same(report, case, engine=Engine.ARTICLE, precision="fp32", device="CPU", mode=Mode.LATENCY)


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
    """Return a figure's median with as many digits as it deserves."""
    value = row.median(name)
    return "–" if value is None else number(value)


def number(value: float) -> str:
    """Return three digits that count: 0.123, 1.23, 12.3, 123, 1234."""
    digits = 3 if abs(value) < 1 else 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:.{digits}f}"


def _backbones(report: Report) -> Iterator[str]:
    if len(report.bundles) < 2:
        return
    isa = next(iter(dict.fromkeys(row.case.isa for row in report.rows)), "native")
    found = [row for bundle in report.bundles if (row := best(report, bundle.name, isa))]
    known = [(row, accuracy) for row in found if (accuracy := report.accuracy(row.case)) and accuracy.auc is not None]
    if len(known) < 2:
        return
    fastest = max(known, key=lambda pair: pair[0].median(SPEED) or 0.0)
    surest = max(known, key=lambda pair: pair[1].auc or 0.0)
    if fastest[0] is surest[0]:
        yield f"Of these backbones {fastest[0].case.bundle} is the fastest and the most accurate: take it."
        return
    yield " ".join(
        f"{word}: {row.case.bundle} ({figure(row, SPEED)} frames/s, AUC {accuracy.auc:.3f})."
        for word, (row, accuracy) in (("Fastest", fastest), ("Most accurate", surest))
    )
