"""Writes a report: `report.json` for programs, `report.html` and `report.md` for people, and the plots as PNG."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.measure.cases import ENGINE_NAMES, Case, EngineKind
from benchmarks.measure.circumstances import facts_line
from benchmarks.results import plots
from benchmarks.results.answer import SPEED, article_row, best, figure, fp32_row, number, speedup
from benchmarks.results.schema import Accuracy, GoldenState, Report, Row, Spread
from edge_runtime.atomic import write_atomic
from train.report.evaluation import MEANINGS
from train.report.html import Block, Picture, Section, Table, figure_text, write_report

JSON, HTML = "report.json", "report.html"


def write(report: Report, out: Path) -> Path:
    """Write a report and its plots into folder `out`; return the HTML file."""
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / JSON, report.to_json())
    names = ", ".join(bundle.name for bundle in report.bundles)
    title = f"Benchmark of {names} on {report.circumstances.processor}"
    write_report(out / HTML, title, list(sections(report, out)))
    return out / HTML


def sections(report: Report, out: Path | None = None) -> Iterator[Section]:
    """Yield the sections of a report; its plots are also written into `out`, if given."""

    def picture(drawn: "plots.Figure | None", text: str, stem: str) -> list[Block]:
        if drawn is None:
            return []
        found = Picture(plots.png(drawn), text)
        if out is not None:
            (out / f"{stem}.png").write_bytes(found.png)
        return [found]

    summary = _summary_table(report)
    yield Section("The answer", [*report.answer, summary] if summary.rows else report.answer)
    for isa in dict.fromkeys(row.case.isa for row in report.rows):
        name = report.place(isa)
        rows = [row for row in report.rows if row.case.isa == isa and row.rounds]
        plot = picture(plots.fps_bars(report, isa), f"Frames/s of each case, {name}", f"speed-{isa}")
        yield Section(f"Speed ({name})", [*plot, _speed_table(rows)])
        plot = picture(plots.latencies(report, isa), f"Distribution of latency, {name}", f"latency-{isa}")
        yield Section(f"Latency and memory ({name})", [*plot, _latency_table(rows)])
        if found := [accuracy for accuracy in report.accuracies if accuracy.isa == isa]:
            plot = picture(plots.pareto(report, isa), f"AUC against frames/s, {name}", f"pareto-{isa}")
            yield Section(f"Accuracy ({name})", [*plot, _accuracy_table(found)])
    for run in report.sustained:
        plot = picture(plots.over_time(run), f"Frames/s and clock over time, {run.case}", "sustained")
        seconds = run.series[-1]["second"] if run.series else 0.0
        ended = [f"It ended after {seconds:.0f} s: {run.failed}."] if run.failed else []
        yield Section("Sustained run", [*ended, *plot])
    failed = [(str(row.case), f"failed: {row.failed}") for row in report.rows if row.failed]
    if report.left_out or failed:
        rows_left_out = [*((item.what, item.why) for item in report.left_out), *failed]
        yield Section("What was not measured", [Table(("case", "reason"), rows_left_out, text=True)])
    yield Section("What ran", [_circumstances_table(report), *_tables_of_what_ran(report)])


def _table(columns: Mapping[str, Callable[[Any], str]], items: Iterable[Any], note: str) -> Table:
    """Return a table with a row per item; `columns` gives the cells by heading."""
    return Table(tuple(columns), [tuple(cell(item) for cell in columns.values()) for item in items], note)


def _summary_table(report: Report) -> Table:
    def ratio(other: Callable[[Report, Case], Row | None]) -> Callable[[Row], str]:
        return lambda row: f"{speedup(row, found).median:.1f}" if (found := other(report, row.case)) else "–"

    def of_accuracy(text: Callable[[Accuracy], str]) -> Callable[[Row], str]:
        return lambda row: "–" if (found := report.accuracy(row.case)) is None else text(found)

    columns: dict[str, Callable[[Row], str]] = {
        "backbone": lambda row: row.case.bundle,
        "recommended": lambda row: f"{row.case.precision.upper()} {row.case.device}",
        "speed, frames/s": lambda row: figure(row, SPEED),
        "times FP32": ratio(fp32_row),
        "times the article's loop": ratio(article_row),
        "AUC": of_accuracy(lambda accuracy: figure_text(dict(accuracy.figures["auc"]))),
        "AUC change from FP32": of_accuracy(_auc_change),
        "measured": lambda row: report.place(row.case.isa),
    }
    isas = dict.fromkeys(row.case.isa for row in report.rows)
    rows = [row for isa in isas for bundle in report.bundles if (row := best(report, bundle.name, isa))]
    limit = f"A recommended network may lose at most {report.settings.max_auc_loss:g} of AUC against FP32."
    return _table(columns, rows, f"Throughput mode, from file to verdict. {limit}")


def _speed_table(rows: list[Row]) -> Table:
    def heat(row: Row) -> str:
        throttled = row.values("throttled")
        parts = (figure(row, "temperature_c"), figure(row, "clock_mhz"), f"{sum(throttled):.0f}" if throttled else "–")
        return " / ".join(parts)

    columns: dict[str, Callable[[Row], str]] = {
        "case": _name,
        "network alone, frames/s": lambda row: spread_text(row.spread("model_fps")),
        "file to verdict, frames/s": lambda row: spread_text(row.spread(SPEED)),
        "CPU use, cores": lambda row: figure(row, "cpu_use"),
        "energy, J per frame": lambda row: figure(row, "energy_j"),
        "temperature, °C / clock, MHz / times throttled": heat,
    }
    note = "Median over the rounds (minimum–maximum). – means not measured, or not readable on this machine."
    return _table(columns, rows, note)


def _latency_table(rows: list[Row]) -> Table:
    columns: dict[str, Callable[[Row], str]] = {
        "case": _name,
        "median latency, ms": lambda row: figure(row, "end_to_end_p50_ms"),
        "95th percentile, ms": lambda row: figure(row, "end_to_end_p95_ms"),
        "99th percentile, ms": lambda row: figure(row, "end_to_end_p99_ms"),
        "maximum, ms": lambda row: figure(row, "end_to_end_max_ms"),
        "time to first verdict, s": lambda row: figure(row, "first_verdict_s"),
        "peak memory, MB": lambda row: figure(row, "rss_peak_mb"),
        "logit difference from FP32": lambda row: "–" if row.difference is None else f"{row.difference:.1g}",
        "changed decisions": lambda row: "–" if row.changed is None else str(row.changed),
    }
    note = (
        "From file to verdict, median over the rounds. The first verdict counts from the start of the process; the "
        "compiled model is cached from the second round on. Logits and decisions (by the larger logit): on the timed "
        "pictures."
    )
    return _table(columns, [row for row in rows if row.median(SPEED) is not None], note)


def _accuracy_table(found: list[Accuracy]) -> Table:
    def of_figure(name: str) -> Callable[[Accuracy], str]:
        return lambda accuracy: figure_text(dict(accuracy.figures[name])) if name in accuracy.figures else "–"

    def auc(accuracy: Accuracy) -> str:
        return f"failed: {accuracy.failed}" if accuracy.failed else of_figure("auc")(accuracy)

    def golden(accuracy: Accuracy) -> str:
        if accuracy.golden is GoldenState.NONE:
            return "–" if accuracy.failed else "none in the bundle"
        allowed = f", allowed {accuracy.golden_tolerance:.2g}" if accuracy.golden is GoldenState.WRONG else ""
        return f"{accuracy.golden.value} (logits within {accuracy.golden_difference:.2g}{allowed})"

    columns: dict[str, Callable[[Accuracy], str]] = {
        "network": lambda accuracy: f"{accuracy.bundle}, {accuracy.precision.upper()} {accuracy.device}",
        "AUC": auc,
        "TPR at 1 % FPR": of_figure("tpr_at_1_fpr"),
        "TPR at 5 % FPR": of_figure("tpr_at_5_fpr"),
        "accuracy": of_figure("accuracy"),
        "AUC change from FP32": _auc_change,
        "changed decisions": lambda accuracy: (
            "–" if accuracy.changed is None else f"{accuracy.changed} of {accuracy.pictures}"
        ),
        "golden pictures": golden,
    }
    meaning = MEANINGS["TPR at 1 % FPR"]
    note = (
        f"On {found[0].pictures} faces, 95 % intervals (bootstrap). TPR at 1 % FPR: {meaning[0].lower()}{meaning[1:]}"
    )
    return _table(columns, found, note)


def _name(row: Row) -> str:
    case = row.case
    engine = "" if case.engine is EngineKind.RUNTIME else f"{ENGINE_NAMES[case.engine]} "
    device = f" {case.device}" if case.engine is EngineKind.RUNTIME else ""
    return f"{case.bundle}, {engine}{case.precision.upper()}{device}, {case.mode.value}"


def spread_text(spread: Spread | None) -> str:
    """Return a spread as `median (minimum–maximum)`."""
    if spread is None:
        return "–"
    return f"{number(spread.median)} ({number(spread.low)}–{number(spread.high)})"


def _auc_change(accuracy: Accuracy) -> str:
    change = accuracy.auc_change
    if change is None:
        return "–"
    # With a no-break space around "to", so that the interval stays on one line.
    return f"{change['value']:+.4f} ({change['low']:+.4f}\xa0to\xa0{change['high']:+.4f})".replace("-", "−")


def _circumstances_table(report: Report) -> Table:
    around, load, settings = report.circumstances, report.foreign_load, report.settings
    rows = [
        ("made", around.made),
        ("command", around.command),
        ("commit", around.commit),
        ("processor", around.processor + (", virtual machine" if around.virtual else "")),
        ("instruction set", f"{around.isa} ({', '.join(around.flags)})"),
        ("emulator", around.emulator or "none"),
        ("clock governor, turbo", f"{around.governor}, {around.turbo}"),
        ("memory", f"{around.memory_gb} GB"),
        ("system", f"{around.system}, kernel {around.kernel}, Python {around.python}"),
        ("devices", ", ".join(f"{name}: {full}" for name, full in around.devices.items())),
        ("GPU driver", ", ".join(around.drivers) or "none"),
        ("packages", ", ".join(f"{name} {version}" for name, version in around.packages.items())),
        ("load average at the start", f"{around.load}"),
        (
            "used by other processes",
            "not readable" if load is None else f"{load.median:.1%} of all cores, at most {load.high:.1%}",
        ),
        ("faces", f"{report.data.faces} for accuracy, {report.data.shown} of them timed"),
        (
            "rounds",
            f"{settings.rounds}, interleaved; {settings.seconds:g} s per timing, after a warm-up; "
            f"{report.repeated} measured again because the machine was slower",
        ),
    ]
    return Table(("circumstance", "value"), rows, text=True)


def _tables_of_what_ran(report: Report) -> Iterator[Block]:
    sizes = [
        (
            f"{bundle.name} {bundle.version}",
            bundle.sha256[:12],
            *(number(bundle.sizes_mb[p]) if p in bundle.sizes_mb else "–" for p in ("fp32", "fp16", "int8")),
        )
        for bundle in report.bundles
    ]
    yield Table(("bundle", "SHA-256 of model.json", "FP32, MB", "FP16, MB", "INT8, MB"), sizes)
    measured = [row for row in report.rows if row.rounds]
    facts = [(str(row.case), facts_line(row.facts)) for row in measured]
    yield Table(("case", "settings and versions"), facts, text=True)
    kernels = [
        (str(row.case), "; ".join(f"{name} × {count}" for name, count in row.facts["kernels"].items()))
        for row in measured
        if row.facts.get("kernels")
    ]
    yield Table(("case", "kernels of the compiled graph (layer, kernel, count)"), kernels, text=True)
