"""The report of an evaluation: its sections, from the figures and the judged faces."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from edge_runtime.atomic import atomic_write, write_atomic
from edge_runtime.model.contract import DEMO_NOTICE, LABELS
from edge_runtime.plain_json import plain
from train.evaluation.calibrate import bounds_text
from train.evaluation.evaluation import SLICE_FIGURES, Evaluation, JudgedFaces, risk_by_coverage
from train.evaluation.metrics import FIGURE_NAMES
from train.evaluation.origins import KINDS, ORIGIN_FIGURES
from train.report import plots
from train.report.html import Block, Picture, Section, Table, figure_text, write_report

DECIDED = {
    "coverage": "coverage: share decided",
    "accuracy": "accuracy among the decided",
    "error": "error among the decided",
    "fpr": "FPR: reals called fake",
    "fnr": "FNR: fakes called real",
}

MEANINGS = {
    "threshold": "A face whose score is at least this is called fake. The balanced threshold weighs both errors alike.",
    "balanced accuracy": "The mean of two shares: real faces called real, and fakes called fake. 0.5 is chance.",
    "precision": "Of the faces called fake, the share that is fake. It depends on how many fakes there are.",
    "recall (TPR)": "Of the fakes, the share that is called fake.",
    "FPR": "Of the real faces, the share that is called fake: the false alarms.",
    "F1": "The harmonic mean of precision and recall.",
    "AUC": "The chance that a fake scores higher than a real face, whatever the threshold. 0.5 is guessing, 1 perfect.",
    "average precision": "The mean precision over all recalls; a high value needs few false alarms.",
    "EER": "Equal error rate: the error where as large a share of fakes is missed as of real faces is called fake.",
    "TPR at 1 % FPR": "The share of fakes found if the threshold lets 1 % of the real faces be called fake.",
    "Brier score": "The mean squared distance of the score from the truth (0 or 1). 0 is perfect, 0.25 is always 0.5.",
    "ECE": "Expected calibration error: how far scores are from the share of fakes among faces that get them.",
    "temperature": "The logits are divided by it so that scores are probabilities. Above 1, the network was too sure.",
    "bias": "Added to the divided logit, so that a face as likely fake as real scores 0.5.",
    "coverage": "The share of faces called real or fake; the others are uncertain.",
    "95 % interval": "How much the figure would move with other faces of the same kind (bootstrap). It is unknown with "
    "few groups: a group is a person, a video, near-duplicates, or a single picture.",
}

ROBUSTNESS = {
    "auc": "AUC",
    "balanced_accuracy": "balanced accuracy",
    "recall": "recall",
    "coverage": "coverage",
    "fpr": "FPR",
    "fnr": "FNR",
}
"""The figures of the robustness grid, and their names."""

SHOWN = 12
"""Pictures of each class that are shown as the most wrong."""


def write_evaluation(
    out: Path, evaluation: Evaluation, judged: JudgedFaces, *, pictures: bool, first: Sequence[Section] = ()
) -> None:
    """Write `evaluation.json`, `report.html` and `report.md` into `out`; the sections `first` come first."""
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(plain(evaluation), indent=2, ensure_ascii=False)
    write_atomic(out / "evaluation.json", text + "\n", errors="replace")
    sections = [*first, *evaluation_sections(evaluation, judged, pictures=pictures)]
    write_report(out / "report.html", f"Evaluation of {evaluation.subject['name']}", sections)


def write_scores(path: Path, judged: JudgedFaces, *, splits: bool) -> None:
    """Write one line per judged face as CSV; its logits are those of real and fake, separated by a space.

    Without `splits` the data has none, so the column is empty.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, errors="surrogateescape", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("file", "label", "source", "split", "group", "logits", "score", "verdict"))
        for face, group, logits, score in zip(judged.faces, judged.groups, judged.logits, judged.scores, strict=True):
            split = face.split if splits else ""
            row = (face.path, LABELS[face.label], face.origin, split, group, " ".join(map(str, logits)))
            writer.writerow((*row, float(score), judged.calibration.verdict(float(score)).value))


def evaluation_sections(evaluation: Evaluation, judged: JudgedFaces, *, pictures: bool) -> list[Section]:
    """Return the sections of the report; those with faces only if `pictures` is true."""
    sections = [Section("What was judged", _subject(evaluation)), Section("Figures", _figures(evaluation))]
    if 0 < judged.labels.sum() < len(judged.labels):
        curves = [
            plots.roc_and_precision(judged.labels, judged.scores),
            plots.reliability(judged.labels, judged.scores, judged.calibration.low, judged.calibration.high),
        ]
        sections.append(Section("Curves", curves))
    sections.append(Section("Verdicts at the two thresholds", _verdicts(evaluation, judged)))
    if evaluation.slices:
        sections.append(Section("By source, generator and face size", [_slice_table(evaluation.slices)]))
    if evaluation.origins:
        sections.append(Section("Across sources and generators", origin_tables(evaluation.origins)))
    if evaluation.robustness:
        note = f"On {evaluation.robustness[0]['faces']} faces, with the thresholds of clean validation pictures."
        rows = [(row["name"], *(figure_text(row[key]) for key in ROBUSTNESS)) for row in evaluation.robustness]
        sections.append(Section("Robustness", [note, Table(("condition", *ROBUSTNESS.values()), rows)]))
    if pictures:
        sections.append(Section("Most wrong", _most_wrong(judged)))
    sections.append(Section("What the figures mean", [Table(("figure", "meaning"), list(MEANINGS.items()), text=True)]))
    return [*sections, method_section(evaluation.method)]


def method_section(method: Mapping[str, Any]) -> Section:
    """Return what somebody else needs to check the figures."""
    shown = {**method, "versions": ", ".join(f"{name} {version}" for name, version in method["versions"].items())}
    rows = [(name.replace("_", " "), str(value)) for name, value in shown.items()]
    return Section("How it was measured", [Table(("", ""), rows, text=True)])


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
    return [*notes, Table(("what", ""), rows, text=True)]


def _figures(evaluation: Evaluation) -> list[Block]:
    figures, half = evaluation.figures, evaluation.half
    rows = [(name, figure_text(figures[key]), figure_text(half[key])) for key, name in FIGURE_NAMES.items()]
    threshold = evaluation.calibration["balanced"]
    counts = [
        ("real", figure_text(figures["tn"], 0), figure_text(figures["fp"], 0)),
        ("fake", figure_text(figures["fn"], 0), figure_text(figures["tp"], 0)),
    ]
    return [
        "The positive class is fake. In brackets: 95 % bootstrap intervals. The balanced threshold was chosen on the "
        "validation split. The last section says what each figure means.",
        Table(("figure", f"at the balanced threshold ({threshold:.3f})", "at 0.5"), rows),
        Table(("truth", "called real", "called fake"), counts, "Confusion matrix at the balanced threshold"),
    ]


def _verdicts(evaluation: Evaluation, judged: JudgedFaces) -> list[Block]:
    calibration = evaluation.calibration
    rows = [(name, figure_text(evaluation.decided[key])) for key, name in DECIDED.items()]
    text = (
        f"A score of at most {calibration['low']:.4f} is called real, of at least {calibration['high']:.4f} fake, "
        f"between them uncertain. Temperature {calibration['temperature']:.3f}, bias {calibration['bias']:+.3f}."
    )
    text += f" {bounds_text(calibration)}"
    if not calibration["fitted"]:
        text += " These were not fitted, because there were no labelled pictures."
    return [text, Table(("figure", "value"), rows), plots.risk_coverage(*risk_by_coverage(judged))]


def _slice_table(slices: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        (
            f"{row['by']}: {row['name']}",
            row["real"],
            row["fake"],
            *(figure_text(row[key]) if key in row else "too few" for key in SLICE_FIGURES),
        )
        for row in slices
    ]
    return Table(("slice", "real faces", "fake faces", *(FIGURE_NAMES[key] for key in SLICE_FIGURES)), rows)


def origin_tables(origins: Mapping[str, Any]) -> list[Table]:
    """Return what `train.evaluation.origins.origin_figures` measured: a table for sources, one for generators."""
    tables = []
    for kind in KINDS:
        rows = [
            (row["name"], ", ".join(row["against"]) or "all", row["real"], row["fake"], row)
            for row in origins["rows"]
            if row["by"] == kind
        ]
        if rows:
            rows += [(name, "", "", "", origins[name][kind]) for name in ("mean", "worst")]
            cells = [(*begin, *(figure_text(found[key]) for key in ORIGIN_FIGURES)) for *begin, found in rows]
            tables.append(Table((kind, "against", "real faces", "fake faces", *ORIGIN_FIGURES.values()), cells))
    return tables


def _most_wrong(judged: JudgedFaces) -> list[Block]:
    distance = np.where(judged.labels == 1, 1 - judged.scores, judged.scores)
    blocks: list[Block] = []
    for label, name in ((0, "real faces with the highest scores"), (1, "fake faces with the lowest scores")):
        worst = [int(index) for index in np.argsort(-distance) if judged.labels[index] == label][:SHOWN]
        if worst:
            scores = ", ".join(f"{judged.scores[index]:.3f}" for index in worst)
            faces = contact_sheet([judged.faces[index].read() for index in worst], name)
            blocks += [f"{name.capitalize()}: {scores}.", faces]
    return blocks


def contact_sheet(
    images: Sequence[Image.Image], text: str, columns: int = 6, side: int = 160, names: Sequence[str] = ()
) -> Picture:
    """Return photos side by side as one picture, with `names` to the left of its rows."""
    rows, margin = -(-len(images) // columns), side if names else 0
    sheet = Image.new("RGBA", (margin + columns * side, rows * side))
    draw = ImageDraw.Draw(sheet)
    for row, name in enumerate(names):  # in a grey that is readable on a light and on a dark page
        draw.text((8, (row + 0.5) * side), name, "#808080", ImageFont.load_default(side / 6), anchor="lm")
    for index, image in enumerate(images):
        thumbnail = image.copy()
        thumbnail.thumbnail((side - 4, side - 4))
        sheet.paste(thumbnail, (margin + index % columns * side + 2, index // columns * side + 2))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return Picture(buffer.getvalue(), text, photo=True)
