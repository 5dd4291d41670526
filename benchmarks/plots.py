"""The pictures of a report: bars of FPS with their spread, accuracy against FPS, latencies, a long run over time."""

from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.answer import SPEED, number
from benchmarks.cases import ISA_NAMES, Engine, Mode
from benchmarks.results import Report, Row, Sustained

matplotlib.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})

COLOURS = {"fp32": "#4c6a92", "fp16": "#7aa6a1", "int8": "#e08a3c"}
"""Dark blue, green and orange: also told apart by those who see red and green alike, and in grey."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
INK = "#30363d"


def fps_bars(report: Report, isa: str) -> Figure | None:
    """Return bars of FPS, file to verdict, of every bundle and precision, with smallest and largest round."""
    rows = [row for row in report.find(engine=Engine.RUNTIME, isa=isa) if row.spread(SPEED)]
    article = [row for row in report.find(engine=Engine.ARTICLE, isa=isa) if row.spread(SPEED)]
    shown = [*article, *rows]
    if not rows:
        return None
    shown.sort(key=lambda row: (row.case.bundle, row.case.mode.value, row.case.engine.value, row.case.precision))
    figure, axes = _axes(height=0.8 + 0.34 * len(shown))
    for place, row in enumerate(reversed(shown)):
        _bar(axes, place, row)
    axes.set_yticks(range(len(shown)), [_bar_name(row) for row in reversed(shown)])
    axes.set_xlabel("frames a second, file to verdict (bar: median of the rounds; line: smallest to largest)")
    axes.set_xlim(0, 1.15 * max(spread.high for row in shown if (spread := row.spread(SPEED))))
    axes.set_title(f"Speed, {ISA_NAMES[isa]}", loc="left")
    return figure


def _bar(axes: Axes, place: int, row: Row) -> None:
    spread = row.spread(SPEED)
    if spread is None:
        return
    colour = COLOURS[row.case.precision] if row.case.engine is Engine.RUNTIME else "#9a9fa6"
    around = [[spread.median - spread.low], [spread.high - spread.median]]
    axes.barh(place, spread.median, color=colour, xerr=around, error_kw={"ecolor": INK, "capsize": 3, "lw": 1})
    axes.annotate(
        number(spread.median), (spread.high, place), xytext=(6, 0), textcoords="offset points", va="center", color=INK
    )


def _bar_name(row: Row) -> str:
    who = "article's loop" if row.case.engine is Engine.ARTICLE else f"{row.case.precision.upper()} {row.case.device}"
    return f"{row.case.bundle} · {who} · {row.case.mode.value}"


def pareto(report: Report, isa: str) -> Figure | None:
    """Return accuracy (AUC with its interval) against FPS; the line joins what nothing else beats in both."""
    rows = [row for row in report.find(engine=Engine.RUNTIME, isa=isa, mode=Mode.THROUGHPUT) if row.spread(SPEED)]
    points = [(row, accuracy) for row in rows if (accuracy := report.accuracy(row.case)) and accuracy.auc is not None]
    if not points:
        return None
    figure, axes = _axes(height=4.2)
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
    axes.set_xlabel("frames a second, file to verdict, throughput (median of the rounds)")
    axes.set_ylabel("AUC (with its 95 % interval)")
    axes.set_title(f"Accuracy against speed, {ISA_NAMES[isa]}", loc="left")
    _legend(axes, bundles, [row.case.precision for row, _ in points])
    return figure


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points (speed, accuracy) that no other point beats in both, by rising speed."""
    front: list[tuple[float, float]] = []
    for speed, accuracy in sorted(points, reverse=True):
        if not front or accuracy > front[-1][1]:
            front.append((speed, accuracy))
    return front[::-1]


def _legend(axes: Axes, bundles: Sequence[str], precisions: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    shapes = [
        Line2D([], [], marker=MARKERS[index % len(MARKERS)], ls="", color=INK, label=name)
        for index, name in enumerate(bundles)
    ]
    colours = [
        Line2D([], [], marker="s", ls="", color=COLOURS[name], label=name.upper())
        for name in COLOURS
        if name in precisions
    ]
    axes.legend(handles=[*shapes, *colours], loc="upper center", bbox_to_anchor=(0.5, -0.16), ncol=3, frameon=False)


def latencies(report: Report, isa: str) -> Figure | None:
    """Return how latency is distributed: for each share of frames, the milliseconds that it stays below."""
    rows = [row for row in report.find(engine=Engine.RUNTIME, isa=isa, mode=Mode.LATENCY) if row.latencies_ms]
    if not rows:
        return None
    figure, axes = _axes(height=4.2)
    bundles = list(dict.fromkeys(row.case.bundle for row in rows))
    for row in rows:
        style = ("-", "--", ":", "-.")[bundles.index(row.case.bundle) % 4]
        name = f"{row.case.bundle} {row.case.precision.upper()} {row.case.device}"
        axes.plot(row.latencies_ms, range(101), ls=style, color=COLOURS[row.case.precision], label=name)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(matplotlib.ticker.FuncFormatter(_minor))
    axes.set_xlabel("latency of a frame, file to verdict, ms (logarithmic)")
    axes.set_ylabel("share of frames that are faster, %")
    axes.set_title(f"Latency one by one, {ISA_NAMES[isa]}", loc="left")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncol=3, frameon=False)
    return figure


def _minor(value: float, _: int) -> str:
    first = int(f"{value:e}"[0])
    return f"{value:g}" if first in (2, 5) else ""


def over_time(run: Sustained) -> Figure | None:
    """Return FPS, and clock and temperature where they can be read, over the minutes of a long run."""
    wanted = ((SPEED, "frames a second"), ("clock_mhz", "clock, MHz"), ("temperature_c", "temperature, °C"))
    shown = [(name, label) for name, label in wanted if any(name in row for row in run.series)]
    if not shown:
        return None
    figure = Figure(figsize=(8, 2.2 * len(shown)), layout="constrained")
    panels: Any = figure.subplots(len(shown), sharex=True, squeeze=False)
    for axes, (name, label) in zip(panels[:, 0], shown, strict=True):
        rows = [row for row in run.series if name in row]
        axes.plot([row["second"] / 60 for row in rows], [row[name] for row in rows], color=COLOURS["int8"], lw=1)
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.25)
    panels[-1, 0].set_xlabel("minutes")
    panels[0, 0].set_title(f"Without a pause: {run.case}", loc="left")
    return figure


def _axes(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8, height), layout="constrained")
    axes = figure.subplots()
    axes.grid(axis="both", alpha=0.25)
    axes.set_axisbelow(True)
    return figure, axes
