"""What an evaluation looks like: sections of the report, from the figures and the judged faces."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edge_runtime.model.contract import DEMO_NOTICE
from edge_runtime.pixels.pictures import read_picture
from train.evaluation.evaluation import Evaluation, Judged, risk_by_coverage
from train.evaluation.metrics import FIGURE_NAMES
from train.report import plots
from train.report.html import Block, Picture, Section, Table, figure_text, plain, write_report

DECIDED = {
    "coverage": "coverage: share decided",
    "accuracy": "accuracy among the decided",
    "error": "error among the decided",
    "fpr": "FPR: reals called fake",
    "fnr": "FNR: fakes called real",
}
SHOWN = 12
"""Pictures a class that are shown as the most wrong."""


def write_evaluation(
    out: Path, evaluation: Evaluation, judged: Judged, *, pictures: bool, first: Sequence[Section] = ()
) -> None:
    """Write `evaluation.json`, `report.html` and `report.md` into `out`; the report begins with sections `first`."""
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(plain(evaluation.to_dict()), indent=2, ensure_ascii=False)
    (out / "evaluation.json").write_text(text + "\n", encoding="utf-8", errors="replace")
    sections = [*first, *evaluation_sections(evaluation, judged, pictures=pictures)]
    write_report(out / "report.html", f"Evaluation of {evaluation.subject['name']}", sections)


def evaluation_sections(evaluation: Evaluation, judged: Judged, *, pictures: bool) -> list[Section]:
    """Return the sections of the report; the faces that were most wrong only where `pictures` is true."""
    sections = [
        Section("What was judged", _subject(evaluation)),
        Section("Figures", _figures(evaluation)),
        Section("Verdicts at the two thresholds", _verdicts(evaluation, judged)),
    ]
    if 0 < judged.labels.sum() < len(judged.labels):
        sections.insert(2, Section("Curves", _curves(judged)))
    if evaluation.slices:
        sections.append(Section("By source, generator and face size", [slice_table(evaluation.slices)]))
    if evaluation.robustness:
        sections.append(Section("Robustness", _robustness(evaluation)))
    if pictures:
        sections.append(Section("Most wrong", _most_wrong(judged)))
    return sections


def _subject(evaluation: Evaluation) -> list[Block]:
    subject, data = evaluation.subject, evaluation.data
    rows = [
        ("model", subject["name"]),
        ("architecture", subject["architecture"]),
        ("precision", subject["precision"]),
        ("data", data.get("path", "")),
        ("split", data.get("split", "")),
        ("faces", f"{data['faces']} ({data['real']} real, {data['fake']} fake)"),
        ("unreadable", len(data["unreadable"])),
        ("times this split was judged", data.get("looks", "not counted")),
    ]
    notes: list[Block] = [f"Warning: {alarm}." for alarm in evaluation.alarms]
    if subject["demo"]:
        notes.append(f"This is a {DEMO_NOTICE}.")
    return [*notes, Table(("what", ""), rows)]


def _figures(evaluation: Evaluation) -> list[Block]:
    figures, half = evaluation.figures, evaluation.half
    rows = [(name, figure_text(figures[key]), figure_text(half[key])) for key, name in FIGURE_NAMES.items()]
    threshold = evaluation.calibration["balanced"]
    counts = [
        ("real", figure_text(figures["tn"], 0), figure_text(figures["fp"], 0)),
        ("fake", figure_text(figures["fn"], 0), figure_text(figures["tp"], 0)),
    ]
    return [
        "The positive class is fake. In brackets: bootstrap intervals of 95 %. "
        "The balanced threshold was chosen on the validation split.",
        Table(("figure", f"at the balanced threshold ({threshold:.3f})", "at 0.5"), rows),
        Table(("truth", "called real", "called fake"), counts, "Confusion matrix at the balanced threshold"),
    ]


def _curves(judged: Judged) -> list[Block]:
    calibration, labels, scores = judged.calibration, judged.labels, judged.scores
    return [
        plots.roc_and_precision(labels, scores),
        plots.reliability(labels, scores, calibration.low, calibration.high),
    ]


def _verdicts(evaluation: Evaluation, judged: Judged) -> list[Block]:
    calibration = evaluation.calibration
    rows = [(name, figure_text(evaluation.decided[key])) for key, name in DECIDED.items()]
    said = (
        f"A score of at most {calibration['low']:.4f} is called real, of at least {calibration['high']:.4f} fake, "
        f"between them uncertain. Temperature {calibration['temperature']:.3f}."
    )
    if not calibration["fitted"]:
        said += " These were not fitted: no labelled pictures were at hand."
    return [said, Table(("figure", ""), rows), plots.risk_coverage(*risk_by_coverage(judged))]


def slice_table(slices: Sequence[Mapping[str, Any]]) -> Table:
    """Return figures by slice as a table."""
    keys = ("auc", "average_precision", "eer", "tpr_at_1_fpr", "tpr_at_5_fpr", "balanced_accuracy")
    rows = [
        (f"{row['by']}: {row['name']}", row["real"], row["fake"], *(_known(row, key) for key in keys)) for row in slices
    ]
    return Table(("slice", "real", "fake", *(FIGURE_NAMES[key] for key in keys)), rows)


def _known(row: Mapping[str, Any], key: str) -> str:
    return figure_text(row[key]) if key in row else "too few"


def _robustness(evaluation: Evaluation) -> list[Block]:
    rows = evaluation.robustness
    count = rows[0].get("faces")
    head = ("condition", "AUC", "balanced accuracy", "recall", "coverage", "FPR", "FNR")
    keys = ("auc", "balanced_accuracy", "recall", "coverage", "fpr", "fnr")
    told = f"On {count} faces. " if count else ""
    return [
        f"{told}Thresholds stay as they were chosen on clean validation pictures.",
        Table(head, [(row["name"], *(figure_text(row[key]) for key in keys)) for row in rows]),
    ]


def _most_wrong(judged: Judged) -> list[Block]:
    distance = np.where(judged.labels == 1, 1 - judged.scores, judged.scores)
    blocks: list[Block] = []
    for label, name in ((0, "real faces with the highest scores"), (1, "fake faces with the lowest scores")):
        own = [int(index) for index in np.argsort(-distance) if judged.labels[index] == label][:SHOWN]
        scores = ", ".join(f"{judged.scores[index]:.3f}" for index in own)
        if own:
            blocks += [f"{name.capitalize()}: {scores}.", _sheet([judged.faces[index].path for index in own], name)]
    return blocks


def _sheet(paths: Sequence[Path], text: str) -> Picture:
    return contact_sheet([read_picture(path) for path in paths], text)


def contact_sheet(images: Sequence[Image.Image], text: str, columns: int = 6, side: int = 160) -> Picture:
    """Return pictures side by side as one."""
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * side, rows * side), "white")
    for index, image in enumerate(images):
        thumbnail = image.copy()
        thumbnail.thumbnail((side - 4, side - 4))
        sheet.paste(thumbnail, (index % columns * side + 2, index // columns * side + 2))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return Picture(buffer.getvalue(), text)
