"""What the year was like: error among the decided and coverage by week, with and without the loop."""

import csv
import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from benchmarks.results.plots import COLOURS, INK, OTHER
from benchmarks.studies.drift import false_alarms
from benchmarks.year.loop import Event, EventKind
from edge_runtime.model.contract import Verdict
from edge_runtime.monitoring.alarm import DriftState

WINDOW = 2
"""Weeks whose faces a point of the curve is from: its own and the ones before."""

STATES = {
    DriftState.UNKNOWN: "#e3e6e8",
    DriftState.OK: "#c9dedb",
    DriftState.WATCH: "#f3d3b3",
    DriftState.DRIFT: "#e08a3c",
}
SHORT = {EventKind.DRIFT: "drift", EventKind.REFUSED: "refused", EventKind.ROLLED_OUT: "rolled out"}


@dataclass(frozen=True)
class Row:
    """One face of the year: when it came, what it is, what was said of it, and the monitor's state after it.

    Attributes:
        verdict: of the model in use.
        first_verdict: of the first model, as without the loop.
        model: version of the model in use.
    """

    week: int
    generator: str
    verdict: Verdict
    first_verdict: Verdict
    state: DriftState
    model: str


@dataclass(frozen=True)
class Shares:
    """Of some faces: how many there are, how many were decided, and how many of these wrongly."""

    faces: int
    decided: int
    wrong: int

    @property
    def error(self) -> float:
        """Error among the decided; NaN if nothing was."""
        return self.wrong / self.decided if self.decided else float("nan")

    @property
    def coverage(self) -> float:
        """Share that was decided; NaN without faces."""
        return self.decided / self.faces if self.faces else float("nan")

    def __str__(self) -> str:
        return f"{self.error:.3f} ({self.wrong} of {self.decided})"


def shares(rows: Sequence[Row], *, first: bool = False) -> Shares:
    """Return the shares of the model in use, or of the first model."""
    said = [(row.first_verdict if first else row.verdict, bool(row.generator)) for row in rows]
    decided = [(verdict is Verdict.FAKE) == fake for verdict, fake in said if verdict is not Verdict.UNCERTAIN]
    return Shares(len(said), len(decided), decided.count(False))


def weekly(rows: Sequence[Row], *, first: bool = False) -> NDArray[np.float64]:
    """Return error and coverage by week, [weeks, 2], each over WINDOW weeks."""
    weeks = rows[-1].week + 1
    found = (shares([row for row in rows if week - WINDOW < row.week <= week], first=first) for week in range(weeks))
    return np.array([(each.error, each.coverage) for each in found])


def phases(rows: Sequence[Row], events: Sequence[Event]) -> list[tuple[str, range]]:
    """Return the parts of the year between changes of generator and roll-outs, with their faces."""
    found, name, begin, model = [], f"{_fakes(rows)}, model 1", 0, "1"
    for event in events:
        if event.kind in (EventKind.CHANGE, EventKind.ROLLED_OUT):
            found.append((name, range(begin, event.faces)))
            begin = event.faces
            model = rows[min(begin, len(rows) - 1)].model.split(".")[0]
            if event.kind is EventKind.ROLLED_OUT:
                model = event.text.split()[-1]
            name = f"{_fakes(rows[begin:])}, model {model}"
    found.append((name, range(begin, len(rows))))
    return [(name, faces) for name, faces in found if faces]


def _fakes(rows: Sequence[Row]) -> str:
    return next((row.generator for row in rows if row.generator), "")


def table(rows: Sequence[Row], events: Sequence[Event]) -> list[str]:
    """Return a Markdown table: faces, error among the decided and coverage of each part, and the first model's."""
    lines = ["| fakes, model | faces | error among the decided | coverage | first model: error | coverage |"]
    lines.append("|---|---:|---:|---:|---:|---:|")
    for name, faces in phases(rows, events):
        part = rows[faces.start : faces.stop]
        own, old = shares(part), shares(part, first=True)
        lines.append(f"| {name} | {len(faces)} | {own} | {own.coverage:.2f} | {old} | {old.coverage:.2f} |")
    return lines


def alarms(rows: Sequence[Row], events: Sequence[Event]) -> list[str]:
    """Return for each change how many faces it took to be noticed, and how often an alarm rose without a change."""
    lines, kinds = [], (EventKind.CHANGE, EventKind.ROLLED_OUT)
    marks = [event for event in events if event.kind in kinds]
    quiet = [range(marks[0].faces if marks else len(rows))]
    for number, event in enumerate(marks):
        end = marks[number + 1].faces if number + 1 < len(marks) else len(rows)
        part = range(event.faces, end)
        if event.kind is EventKind.ROLLED_OUT:
            quiet.append(part)
            continue
        for name, wanted in (("watch or drift", (DriftState.WATCH, DriftState.DRIFT)), ("drift", (DriftState.DRIFT,))):
            count = next((face - event.faces + 1 for face in part if rows[face].state in wanted), None)
            lines.append(f"{event.text}: {name} after {count} faces" if count else f"{event.text}: no {name}")
    false = sum(false_alarms([rows[face].state for face in part]) for part in quiet)
    return [*lines, f"alarms without a change: {false} in {sum(map(len, quiet))} faces"]


def plot(rows: Sequence[Row], events: Sequence[Event], limit: float, name: str = "with the loop") -> Figure:
    """Return error, coverage and the monitor's state by week, with the events; `name` says whose verdicts they are."""
    figure = Figure(figsize=(7.2, 5.2), layout="constrained")
    top, middle, strip = figure.subplots(3, 1, sharex=True, height_ratios=(6, 3, 0.5))
    weeks = np.arange(rows[-1].week + 1) + 1
    for first, colour, label in ((True, OTHER, "first model all year"), (False, COLOURS["fp32"], name)):
        found = weekly(rows, first=first)
        top.plot(weeks, 100 * found[:, 0], color=colour, label=label)
        middle.plot(weeks, 100 * found[:, 1], color=colour)
    top.axhline(100 * limit, color=INK, linewidth=0.8, linestyle=":", label=f"limit, {100 * limit:g} %")
    top.set_ylabel("error among\nthe decided, %")
    middle.set_ylabel("decided, %")
    middle.set_ylim(0, 102)
    a_week = len(rows) / (rows[-1].week + 1)
    height = top.get_ylim()[1] * 1.18
    top.set_ylim(0, height)
    for event in events:
        at, change = event.faces / a_week, event.kind is EventKind.CHANGE
        if not change and event.kind not in SHORT:
            continue
        for axes in (top, middle):
            axes.axvline(at, color=INK if change else COLOURS["int8"], linewidth=1.2 if change else 0.8)
        text = event.text if change else SHORT[event.kind]
        top.text(at, height, f" {text}", rotation=90, va="top", ha="right", fontsize=7.5, color=INK)
    edges = [0, *(face for face in range(1, len(rows)) if rows[face].state is not rows[face - 1].state), len(rows)]
    for begin, end in itertools.pairwise(edges):
        strip.axvspan(begin / a_week, end / a_week, color=STATES[rows[begin].state], linewidth=0)
    strip.set_yticks([])
    strip.set_ylabel("state", rotation=0, ha="right", va="center")
    strip.set_xlabel("week")
    strip.set_xlim(0, len(weeks))
    top.legend(frameon=False, fontsize=8, loc="upper left")
    handles = [Patch(color=colour, label=state.value) for state, colour in STATES.items()]
    figure.legend(handles=handles, loc="outside lower right", ncols=len(handles), frameon=False, fontsize=8)
    return figure


def as_csv(rows: Sequence[Row]) -> str:
    """Return a line for each face."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["week", "generator", "verdict", "first_verdict", "state", "model"])
    for row in rows:
        verdicts = row.verdict.value, row.first_verdict.value
        writer.writerow([row.week, row.generator, *verdicts, row.state.value, row.model])
    return file.getvalue()
