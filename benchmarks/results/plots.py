"""A report's plots: frames/s with their spread, accuracy against frames/s, latencies, and a sustained run over time.

They are narrow, with large letters, so that they can be read on a phone.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from benchmarks.measure.cases import EngineKind, Mode
from benchmarks.results.answer import SPEED, number
from benchmarks.results.schema import Report, Spread, Sustained

matplotlib.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})

WIDTH = 4.4
"""Inches; about 730 pixels at RESOLUTION."""

RESOLUTION = 165
"""Pixels per inch."""

COLOURS = {"fp32": "#4c6a92", "fp16": "#7aa6a1", "int8": "#e08a3c"}
"""Blue, green and orange, which can be told apart with red-green blindness and in greyscale."""

LINE_STYLES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
INK = "#30363d"
OTHER = "#9a9fa6"


def png(figure: Figure) -> bytes:
    """Return a figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=RESOLUTION)
    return buffer.getvalue()


def fps_bars(report: Report, isa: str) -> Figure | None:
    """Return bars of frames/s from file to verdict by bundle and precision, with the minimum and maximum round."""
    bars = list(_bars(report, isa))
    if not bars:
        return None
    figure, axes = _axes(height=1.3 + 0.27 * (len(bars) + 1.4 * len(report.bundles)))
    y, ticks, names = 0.0, [], []
    for bundle in report.bundles:
        axes.text(0, y, f" {bundle.name}", weight="bold", va="center", color=INK)
        for name, colour, spread in (bar[1:] for bar in bars if bar[0] == bundle.name):
            y += 1.0
            error = [[spread.median - spread.low], [spread.high - spread.median]]
            axes.barh(y, spread.median, color=colour, xerr=error, error_kw={"ecolor": INK, "capsize": 2.5, "lw": 1})
            text, end = number(spread.median), (spread.high, y)
            axes.annotate(text, end, xytext=(5, 0), textcoords="offset points", va="center", color=INK)
            ticks.append(y)
            names.append(name)
        y += 1.4
    axes.set_yticks(ticks, names)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(y - 0.7, -0.7)
    axes.set_xlim(0, 1.18 * max(bar[3].high for bar in bars))
    axes.set_xlabel("speed from file to verdict, frames/s\n(bar: median, line: slowest to fastest round)")
    axes.set_title(f"Speed\n({report.place(isa)})", loc="left")
    axes.grid(axis="y", visible=False)
    return figure


def _bars(report: Report, isa: str) -> Iterator[tuple[str, str, str, Spread]]:
    """Yield bundle, name, colour and spread of each bar."""
    for row in report.find(engine=EngineKind.ARTICLE, isa=isa):
        if spread := row.spread(SPEED):
            yield row.case.bundle, "article's loop", OTHER, spread
    rows = report.find(engine=EngineKind.RUNTIME, isa=isa)
    devices = {row.case.device for row in rows}
    for row in sorted(rows, key=lambda row: (row.case.device, row.case.mode.value)):
        if spread := row.spread(SPEED):
            device = f" {row.case.device}" if len(devices) > 1 else ""
            streams = f" ×{row.case.streams}" if row.case.streams else ""
            name = f"{row.case.precision.upper()}{device}, {row.case.mode.value}{streams}"
            yield row.case.bundle, name, COLOURS[row.case.precision], spread


def pareto(report: Report, isa: str) -> Figure | None:
    """Return AUC with its interval against frames/s; the line joins the points that no other beats in both."""
    rows = [row for row in report.find(engine=EngineKind.RUNTIME, isa=isa, mode=Mode.THROUGHPUT) if row.spread(SPEED)]
    points = [(row, accuracy) for row in rows if (accuracy := report.accuracy(row.case)) and accuracy.auc is not None]
    if not points:
        return None
    figure, axes = _axes(height=4.6)
    bundles = list(dict.fromkeys(row.case.bundle for row, _ in points))
    for row, accuracy in points:
        auc, speed = accuracy.figures["auc"], row.median(SPEED)
        axes.errorbar(
            speed or 0.0,
            auc["value"],
            yerr=[[max(0.0, auc["value"] - auc["low"])], [max(0.0, auc["high"] - auc["value"])]],
            fmt=MARKERS[bundles.index(row.case.bundle) % len(MARKERS)],
            color=COLOURS[row.case.precision],
            markersize=8,
            capsize=3,
            lw=1,
        )
    front = pareto_front([(row.median(SPEED) or 0.0, accuracy.auc or 0.0) for row, accuracy in points])
    axes.plot(*zip(*front, strict=True), color=INK, lw=1, ls="--", zorder=0)
    axes.set_xlim(left=0)
    axes.set_xlabel("throughput from file to verdict, frames/s")
    axes.set_ylabel("AUC (with 95 % interval)")
    axes.set_title(f"Accuracy against speed\n({report.place(isa)})", loc="left")
    shapes = [
        Line2D([], [], marker=MARKERS[index % len(MARKERS)], ls="", color=INK, label=name)
        for index, name in enumerate(bundles)
    ]
    _legend(axes, shapes, [row.case.precision for row, _ in points])
    return figure


def frontier(networks: Sequence[tuple[str, float, Mapping[str, float]]]) -> Figure:
    """Return AUC {value, low, high} against frames/s of the network alone, given as (name, frames/s, AUC)."""
    figure, axes = _axes(height=4.6)
    for index, (name, speed, auc) in enumerate(networks):
        reach = [[max(0.0, auc["value"] - auc["low"])], [max(0.0, auc["high"] - auc["value"])]]
        axes.errorbar(speed, auc["value"], yerr=reach, fmt=MARKERS[index % len(MARKERS)], label=name, capsize=3, lw=1)
    front = pareto_front([(speed, auc["value"]) for _, speed, auc in networks])
    axes.plot(*zip(*front, strict=True), color=INK, lw=1, ls="--", zorder=0)
    axes.set_xlim(left=0)
    axes.set_xlabel("INT8 capped to SSE4.2, frames/s")
    axes.set_ylabel("AUC (with 95 % interval)")
    figure.legend(loc="outside lower left", frameon=False)
    return figure


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points (speed, accuracy) that no other point beats in both, by increasing speed."""
    front: list[tuple[float, float]] = []
    for speed, accuracy in sorted(points, reverse=True):
        if not front or accuracy > front[-1][1]:
            front.append((speed, accuracy))
    return front[::-1]


def _legend(axes: Axes, bundles: Sequence[Line2D], precisions: Sequence[str]) -> None:
    colours = [
        Line2D([], [], marker="s", ls="", color=COLOURS[name], label=name.upper())
        for name in COLOURS
        if name in precisions
    ]
    columns = 2 if len(bundles) > 3 else 1
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.legend(handles=list(bundles), loc="outside lower left", ncol=columns, frameon=False)
    figure.legend(handles=colours, loc="outside lower right", ncol=1, frameon=False)


def latencies(report: Report, isa: str) -> Figure | None:
    """Return the cumulative distribution of latency: for each latency, the share of frames that are faster."""
    rows = [row for row in report.find(engine=EngineKind.RUNTIME, isa=isa, mode=Mode.LATENCY) if row.latencies_ms]
    if not rows:
        return None
    figure, axes = _axes(height=4.6)
    bundles = list(dict.fromkeys(row.case.bundle for row in rows))
    for row in rows:
        style = LINE_STYLES[bundles.index(row.case.bundle) % len(LINE_STYLES)]
        wide = 3.5 if row.case.precision == "fp32" else 1.5  # FP16 often hides FP32 otherwise.
        axes.plot(row.latencies_ms, range(101), ls=style, lw=wide, color=COLOURS[row.case.precision])
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(FuncFormatter(lambda x, _: f"{x:g}" if f"{x:e}"[0] in "25" else ""))
    axes.set_xlabel("latency from file to verdict, ms (logarithmic)")
    axes.set_ylabel("frames that are faster, %")
    axes.set_title(f"Latency one frame at a time\n({report.place(isa)})", loc="left")
    lines = [
        Line2D([], [], ls=LINE_STYLES[index % len(LINE_STYLES)], color=INK, label=name)
        for index, name in enumerate(bundles)
    ]
    _legend(axes, lines, [row.case.precision for row in rows])
    return figure


def over_time(run: Sustained) -> Figure | None:
    """Return frames/s, and clock and temperature if they can be read, over the minutes of a sustained run."""
    wanted = ((SPEED, "speed, frames/s"), ("clock_mhz", "clock, MHz"), ("temperature_c", "temperature, °C"))
    shown = [(name, label) for name, label in wanted if any(name in row for row in run.series)]
    if not shown:
        return None
    figure = Figure(figsize=(WIDTH, 2.0 * len(shown) + 0.6), layout="constrained")
    panels: Any = figure.subplots(len(shown), sharex=True, squeeze=False)
    for axes, (name, label) in zip(panels[:, 0], shown, strict=True):
        rows = [row for row in run.series if name in row]
        axes.plot([row["second"] / 60 for row in rows], [row[name] for row in rows], color=COLOURS["int8"], lw=1)
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.25)
    panels[-1, 0].set_xlabel("time, minutes")
    panels[0, 0].set_title("Sustained run", loc="left")
    return figure


def _axes(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots()
    axes.grid(axis="both", alpha=0.25)
    axes.set_axisbelow(True)
    return figure, axes
