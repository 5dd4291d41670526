"""The report of a comparison: comparison.html, .md and .json. The last is what a kit is checked against."""

import json
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.promotion.gates import ALL, NAMES, Gate
from benchmarks.promotion.promotion import Comparison
from benchmarks.results.plots import png
from edge_runtime.atomic import write_atomic
from edge_runtime.model.contract import DEMO_NOTICE
from edge_runtime.plain_json import plain
from train.report.html import Block, Picture, Section, Table, write_report

NAME = "comparison"


def answer(found: Comparison) -> str:
    """Return whether the new detector is promoted and why, in one line."""
    return f"{'promoted' if found.promoted else 'not promoted'}: {found.reason}"


def write_comparison(found: Comparison, out: Path) -> Path:
    """Write the report into the folder `out` and return its page."""
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(plain(found), indent=2, ensure_ascii=False)
    write_atomic(out / f"{NAME}.json", text + "\n", errors="replace")
    page = out / f"{NAME}.html"
    write_report(page, f"{found.new['name']} instead of {found.old['name']}", _sections(found))
    return page


def _sections(found: Comparison) -> list[Section]:
    text = answer(found)
    first: list[Block] = [text[0].upper() + text[1:] + ".", *(f"{note}." for note in found.notes)]
    if found.old["demo"] or found.new["demo"]:
        first.append(f"This is a {DEMO_NOTICE}.")
    keys = ("name", "architecture", "version", "precision", "sha256")
    data = [(path, count) for path, count in found.data.get("by", {}).items()]
    around = found.circumstances
    sections = [
        Section("Answer", first),
        Section(
            "The detectors", [Table(("", "old", "new"), [(k, found.old[k], found.new[k]) for k in keys], text=True)]
        ),
    ]
    if found.gates:
        sections.append(Section("Gates", [_explained(), _table(found.gates)]))
    if found.field:
        text = found.field["text"]
        sections.append(Section("In the field", [text[0].upper() + text[1:] + "."]))
    if plotted := [gate for gate in found.gates if gate.figure == "error"]:
        sections.append(Section("Error by source", [_forest(plotted)]))
    made = [("command", around.command), ("made", around.made), ("commit", around.commit)]
    made.append(("machine", f"{around.processor}, {around.system}"))
    if data:
        sections.append(Section("Data", [Table(("--data", "faces of the test split"), data)]))
    sections.append(Section("How it was made", [Table(("what", ""), made, text=True)]))
    return sections


def _explained() -> str:
    return (
        "Both detectors judged the same faces, capped to SSE4.2 where they are bundles. Loss is how much worse the new "
        "one is (negative: better) with its interval: a paired bootstrap (95 %) that draws faces of one person and "
        "near-duplicates together, or the rounds of rate (frames/s) and memory (MB), as a share. No upper bound of "
        "AUC, error or coverage is below what as many faces without a loss prove: 1 % for 300. Over all faces the "
        "interval must end before what is allowed; on a source alone, where there are fewer faces, a gate fails if the "
        "loss is above what is allowed and its interval, widened for the number of sources, is above 0."
    )


def _table(gates: Sequence[Gate]) -> Table:
    rows = []
    for gate in gates:
        digits = 1 if gate.figure in ("rate", "memory") else 3
        # Adding zero turns -0.0 into 0.0.
        value, low, high = (f"{round(gate.loss[name], 3) + 0.0:+.3f}" for name in ("value", "low", "high"))
        old, new = (f"{value:.{digits}f}" for value in (gate.old, gate.new))
        what, loss = f"{NAMES[gate.figure]}, {gate.where}", f"{value} ({low} to {high})"
        rows.append((what, old, new, loss, f"{gate.allowed:g}", "passes" if gate.passed else "fails"))
    return Table(("figure", "old", "new", "loss", "allowed", "gate"), rows)


def _forest(gates: Sequence[Gate]) -> Picture:
    """Return the loss of each source with its interval."""
    plot = Figure(figsize=(7, 1.2 + 0.35 * len(gates)), layout="constrained")
    axes = plot.subplots()
    for place, gate in enumerate(reversed(gates)):
        colour = "tab:blue" if gate.passed else "tab:red"
        axes.plot([gate.loss["low"], gate.loss["high"]], [place, place], color=colour)
        axes.plot(gate.loss["value"], place, "o", color=colour)
    axes.set_yticks(range(len(gates)), [gate.where for gate in reversed(gates)])
    axes.axvline(0.0, color="grey", linewidth=0.8)
    axes.axvline(next(gate.allowed for gate in gates if gate.where == ALL), color="grey", linestyle=":")
    axes.set_xlabel("loss in error among the decided (right is worse; dotted: allowed)")
    return Picture(png(plot), "Loss in error among the decided by source")
