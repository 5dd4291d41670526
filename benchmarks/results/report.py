"""The report of a run: `report.json` for programs, `report.html` and `report.md` for people, and its plots as PNG."""

from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure.cases import ENGINE_NAMES, Engine
from benchmarks.measure.circumstances import facts_line
from benchmarks.results import plots
from benchmarks.results.answer import SPEED, article_row, best, figure, fp32_row, number, speedup
from benchmarks.results.schema import Accuracy, BundleFacts, Report, Row, Spread, Sustained
from train.report.html import Block, Picture, Section, Table, figure_text, write_report

JSON = "report.json"
HEAT = "°C / MHz / times throttled"
HTML = "report.html"


def write(report: Report, out: Path) -> Path:
    """Write a report and its plots into folder `out`; return the HTML file."""
    out.mkdir(parents=True, exist_ok=True)
    (out / JSON).write_text(report.to_json(), encoding="utf-8")
    write_report(out / HTML, title(report), list(sections(report, out)))
    return out / HTML


def title(report: Report) -> str:
    """Return the report's title."""
    names = ", ".join(bundle.name for bundle in report.bundles)
    return f"Benchmark of {names} on {report.circumstances.processor}"


def sections(report: Report, out: Path | None = None) -> Iterator[Section]:
    """Return the sections of a report; its plots are written into `out` too, where one is given."""
    summary = _summary(report)
    yield Section("The answer", [*report.answer, summary] if summary.rows else report.answer)
    for isa in dict.fromkeys(row.case.isa for row in report.rows):
        yield from _isa_sections(report, isa, out)
    for run in report.sustained:
        picture = _picture(plots.over_time(run), f"FPS and clock over time of {run.case}", "sustained", out)
        ended = [f"It ended after {_seconds(run):.0f} s: {run.failed}."] if run.failed else []
        yield Section("Without a pause", [*ended, *([picture] if picture else [])])
    if report.left_out or any(row.failed for row in report.rows):
        yield Section("What was not measured", [_left_out(report)])
    yield Section("What ran", list(_what_ran(report)))


def _seconds(run: Sustained) -> float:
    return run.series[-1]["second"] if run.series else 0.0


def _summary(report: Report) -> Table:
    head = ("backbone", "take", "frames/s", "× FP32", "× article's loop", "AUC", "AUC − FP32's", "where")
    isas = dict.fromkeys(row.case.isa for row in report.rows)
    found = [row for isa in isas for bundle in report.bundles if (row := best(report, bundle.name, isa))]
    caption = f"Many at once, from file to verdict. At most {report.max_auc_loss:g} of AUC may be lost against FP32."
    return Table(head, [_summary_cells(report, row) for row in found], caption)


def _summary_cells(report: Report, row: Row) -> tuple[str, ...]:
    case, accuracy = row.case, report.accuracy(row.case)
    others = (fp32_row(report, case), article_row(report, case))
    ratios = [f"{speedup(row, other).median:.1f}" if other else "–" for other in others]
    auc = "–" if accuracy is None else figure_text(dict(accuracy.figures["auc"]))
    change = "–" if accuracy is None else _change(accuracy)
    cells = (figure(row, SPEED), *ratios, auc, change, report.place(case.isa))
    return (case.bundle, f"{case.precision.upper()} {case.device}", *cells)


def _isa_sections(report: Report, isa: str, out: Path | None) -> Iterator[Section]:
    name = report.place(isa)
    pictures = (
        (plots.fps_bars(report, isa), f"Bars of frames a second, {name}", f"speed-{isa}"),
        (plots.pareto(report, isa), f"AUC against frames a second, {name}", f"pareto-{isa}"),
        (plots.latencies(report, isa), f"Distribution of latency, {name}", f"latency-{isa}"),
    )
    speed, trade, latency = (_picture(drawn, text, stem, out) for drawn, text, stem in pictures)
    rows = [row for row in report.rows if row.case.isa == isa and row.rounds]
    yield Section(f"Speed ({name})", [block for block in (speed, _speed_table(rows)) if block])
    yield Section(f"Latency and memory ({name})", [block for block in (latency, _latency_table(rows)) if block])
    found = [accuracy for accuracy in report.accuracies if accuracy.isa == isa]
    if found:
        yield Section(f"Accuracy ({name})", [block for block in (trade, _accuracy_table(report, found)) if block])


def _picture(drawn: "plots.Figure | None", text: str, stem: str, out: Path | None) -> Block | None:
    if drawn is None:
        return None
    picture = Picture(plots.png(drawn), text)
    if out is not None:
        (out / f"{stem}.png").write_bytes(picture.png)
    return picture


def _who(row: Row) -> str:
    case = row.case
    who = f"{case.precision.upper()} {case.device}" if case.engine is Engine.RUNTIME else ENGINE_NAMES[case.engine]
    precision = "" if case.engine is Engine.RUNTIME else f" {case.precision.upper()}"
    return f"{case.bundle}, {who}{precision}, {case.mode.value}"


def _spread(spread: Spread | None) -> str:
    if spread is None:
        return "–"
    return f"{number(spread.median)} ({number(spread.low)}–{number(spread.high)})"


def _speed_table(rows: list[Row]) -> Table:
    head = ("what", "network alone, frames/s", "file to verdict, frames/s", "CPU use, cores", "energy, J a frame", HEAT)
    cells = [
        (
            _who(row),
            _spread(row.spread("model_fps")),
            _spread(row.spread(SPEED)),
            figure(row, "cpu_use"),
            figure(row, "energy_j"),
            _heat(row),
        )
        for row in rows
    ]
    return Table(head, cells, "Median of the rounds (smallest–largest). – is not measured or not readable here.")


def _heat(row: Row) -> str:
    throttled = row.values("throttled")
    parts = (figure(row, "temperature_c"), figure(row, "clock_mhz"), f"{sum(throttled):.0f}" if throttled else "–")
    return " / ".join(parts)


def _latency_table(rows: list[Row]) -> Table:
    head = (
        "what",
        "p50, ms",
        "p95, ms",
        "p99, ms",
        "max, ms",
        "first verdict, s",
        "memory peak, MB",
        "logits − FP32's",
    )
    cells = [
        (
            _who(row),
            *(figure(row, f"end_to_end_{name}_ms") for name in ("p50", "p95", "p99", "max")),
            figure(row, "first_verdict_s"),
            figure(row, "rss_peak_mb"),
            "–" if row.difference is None else f"{row.difference:.1g}, {row.changed} changed",
        )
        for row in rows
        if row.median(SPEED) is not None
    ]
    caption = (
        "From file to verdict, median of the rounds. First verdict: from the start of the process, with the model "
        "cached from the second round on. Logits: largest difference from FP32's on the pictures shown, and how many "
        "decisions differ."
    )
    return Table(head, cells, caption)


def _accuracy_table(report: Report, found: list[Accuracy]) -> Table:
    head = (
        "what",
        "AUC",
        "TPR at 1 % FPR",
        "TPR at 5 % FPR",
        "accuracy",
        "AUC − FP32's",
        "changed",
        "golden",
    )
    cells = [_accuracy_cells(accuracy) for accuracy in found]
    return Table(head, cells, f"On {found[0].pictures} faces, with intervals of 95 % (bootstrap).")


def _accuracy_cells(accuracy: Accuracy) -> tuple[str, ...]:
    name = f"{accuracy.bundle}, {accuracy.precision.upper()} {accuracy.device}"
    if accuracy.failed:
        return (name, f"failed: {accuracy.failed}", *[""] * 6)
    names = ("auc", "tpr_at_1_fpr", "tpr_at_5_fpr", "accuracy")
    figures = [figure_text(dict(accuracy.figures[key])) for key in names]
    changed = "–" if accuracy.changed is None else f"{accuracy.changed} of {accuracy.pictures}"
    return (name, *figures, _change(accuracy), changed, accuracy.golden)


def _change(accuracy: Accuracy) -> str:
    change = accuracy.auc_change
    if change is None:
        return "–"
    return f"{change['value']:+.4f} ({change['low']:+.4f} to {change['high']:+.4f})".replace("-", "−")


def _left_out(report: Report) -> Table:
    failed = [(str(row.case), f"failed: {row.failed}") for row in report.rows if row.failed]
    return Table(("what", "why"), [*((item.what, item.why) for item in report.left_out), *failed])


def _what_ran(report: Report) -> Iterator[Block]:
    around = report.circumstances
    load = report.foreign_load
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
        ("load when it began", f"{around.load}"),
        (
            "used by others",
            "not readable" if load is None else f"{load.median:.1%} of all cores, at most {load.high:.1%}",
        ),
        ("faces", f"{report.data['faces']} for accuracy, {report.data['shown']} of them under the stopwatch"),
        ("rounds", _rounds(report)),
    ]
    yield Table(("circumstance", ""), rows)
    sizes = [
        (f"{bundle.name} {bundle.version}", bundle.sha256[:12], *(_size(bundle, p) for p in ("fp32", "fp16", "int8")))
        for bundle in report.bundles
    ]
    yield Table(("bundle", "model.json", "FP32, MB", "FP16, MB", "INT8, MB"), sizes)
    measured = [row for row in report.rows if row.rounds]
    yield Table(("what", "ran with"), [(str(row.case), facts_line(row.facts)) for row in measured])
    kernels = [(str(row.case), _kernels(row)) for row in measured if row.facts.get("kernels")]
    yield Table(("what", "kernels of the compiled graph (layer, kernel, how many)"), kernels)


def _rounds(report: Report) -> str:
    settings = report.settings
    return f"{settings['rounds']}, interleaved; {settings['seconds']} s a figure in each, after a warm-up"


def _size(bundle: BundleFacts, precision: str) -> str:
    return number(bundle.sizes_mb[precision]) if precision in bundle.sizes_mb else "–"


def _kernels(row: Row) -> str:
    return "; ".join(f"{name} × {count}" for name, count in row.facts["kernels"].items())
