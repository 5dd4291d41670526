"""What the training commands print."""

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from edge_runtime.model.contract import LABELS
from train.commands.prepare import AUDIT, ENOUGH_TO_TEST, Prepared
from train.data.catalog import CATALOG, SPLITS, Catalog, left_out_lines
from train.evaluation.calibrate import bounds_text
from train.evaluation.evaluation import Evaluation
from train.evaluation.metrics import FIGURE_NAMES
from train.report.evaluation import origin_tables
from train.report.html import Table as ReportTable
from train.report.html import figure_text
from train.report.shortcuts import audit_verdict

if TYPE_CHECKING:  # It needs torch, which prepare-faces does without.
    from train.self_made.fakes import SelfMade

TOLD = ("auc", "accuracy", "balanced_accuracy", "f1", "eer", "tpr_at_1_fpr", "tpr_at_5_fpr")


def tell_prepared(prepared: Prepared, out: Path) -> int:
    """Print the number of faces in each split and what the audit found; return the exit code."""
    console = Console(highlight=False)
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    catalog, audit = prepared.catalog, prepared.audit
    table = Table("split", *LABELS)
    counts = Counter((face.split, face.label) for face in catalog.records)
    for split in SPLITS:
        table.add_row(split, *(str(counts[split, label]) for label in range(len(LABELS))))
    console.print(table)
    for note in prepared.notes:
        console.print(note, markup=False, soft_wrap=True)
    for label, name in enumerate(LABELS):
        origins = Counter(face.origin for face in catalog.records if face.label == label)
        if len(origins) > 1:
            held = ", ".join(f"{origin} {count}" for origin, count in origins.most_common())
            console.print(f"{name} from {held}", markup=False, soft_wrap=True)
    tell_files((file.path, file.reason) for file in catalog.quarantine)
    console.print(f"catalog: {out / CATALOG}", markup=False, soft_wrap=True)
    for gap in prepared.gaps:
        errors.print(f"warning: {gap}", markup=False)
    if prepared.small:
        held = " and ".join(f"{count} {name}" for name, count in prepared.small.items())
        errors.print(
            f"warning: the test split has only {held} faces, so its figures are uncertain; {ENOUGH_TO_TEST} of each "
            "class are a minimum"
        )
    if audit is None:
        console.print("audit: too few faces")
    else:
        (errors if audit.faults else console).print(f"audit: {audit_verdict(audit)}", markup=False, soft_wrap=True)
        for finding in audit.warnings:
            console.print(f"warning: {finding.name} tells the classes apart (AUC {figure_text(finding.auc, 2)})")
        console.print(f"audit report: {out / AUDIT}", markup=False, soft_wrap=True)
    faulty = audit is not None and audit.faults
    return 1 if faulty or prepared.gaps or any(file.broken for file in catalog.quarantine) else 0


def tell_evaluation(evaluation: Evaluation, out: Path) -> None:
    """Print the most important figures, and where the report is."""
    console = Console(highlight=False)
    data = evaluation.data
    table = Table(
        title=f"{evaluation.subject['name']} on {data['faces']} faces ({data['split']})", title_justify="left"
    )
    table.add_column("figure")
    table.add_column("value (95 % interval)", justify="right")
    for name in TOLD:
        table.add_row(FIGURE_NAMES[name], figure_text(evaluation.figures[name]))
    for name in ("coverage", "accuracy"):
        table.add_row(f"{name} of verdicts", figure_text(evaluation.decided[name]))
    console.print(table)
    for found in origin_tables(evaluation.origins) if evaluation.origins else ():
        tell_table(found)
    console.print(bounds_text(evaluation.calibration), soft_wrap=True)
    for alarm in evaluation.alarms:
        console.print(f"warning: {alarm}", markup=False, soft_wrap=True)
    tell_files([*((path, "can't be read") for path in data["unreadable"]), *data["left_out"].items()])
    console.print(f"report: {out / 'report.html'}", markup=False, soft_wrap=True)


def tell_self_made(added: Iterable["SelfMade"]) -> None:
    """Print how many fakes were made of real faces, and what their audit found."""
    for made in added:
        verdict = f"audit: {audit_verdict(made.audit)}" if made.audit else "too few for an audit"
        faulty = bool(made.audit and made.audit.faults)
        Console(stderr=faulty, highlight=False, soft_wrap=True).print(
            f"{'warning: ' * faulty}{made.name}: {len(made.faces):,} fakes of {made.originals:,} real faces; sharpness "
            f"alone tells them apart with an AUC of {made.sharpness:.2f}; {verdict}",
            markup=False,
        )


def tell_table(found: ReportTable) -> None:
    """Print a table of a report that is too wide for a terminal, as one line per row."""
    console = Console(highlight=False, soft_wrap=True)
    for row in found.rows:
        cells = (f"{name} {cell}" for name, cell in zip(found.head[1:], row[1:], strict=True) if cell != "")
        console.print(f"{found.head[0]} {row[0]}: {', '.join(cells)}", markup=False)


def tell_plan(
    catalog: Catalog, arch: str, epochs: str, device: str, minutes: float, draws: Mapping[tuple[int, str], int]
) -> None:
    """Print what a training begins with: faces by split and class, epochs, device, the expected time, and how many
    faces an epoch draws of each source, by (label, source), where they are balanced.
    """
    console = Console(highlight=False, soft_wrap=True)
    counts = Counter((face.split, face.label) for face in catalog.records)
    held = (
        f"{split} " + " and ".join(f"{counts[split, label]:,} {name}" for label, name in enumerate(LABELS))
        for split in SPLITS
    )
    console.print(f"faces: {', '.join(held)}")
    console.print(f"{arch}: {epochs} on {device}, about {max(1, round(minutes)):,} min", markup=False)
    if draws:
        drawn = (f"{count:,} {LABELS[label]} {name}".rstrip() for (label, name), count in draws.items())
        console.print(f"an epoch draws {', '.join(drawn)}", markup=False)


def tell_trained(best: Path, catalog: Catalog, evaluation: Evaluation | None) -> int:
    """Print the figures of the best checkpoint, where it is, and the next command; return the exit code.

    `evaluation` is None in every process but the main one, which then prints nothing.
    """
    if evaluation is not None:
        tell_evaluation(evaluation, best.parent)
        tell_files((file.path, file.reason) for file in catalog.quarantine)
        print(f"checkpoint: {best}")
        if catalog.split("test"):
            command = ["evaluate-detector", best, best.parent / CATALOG, "--out", best.parent / "test"]
        else:
            command = ["export-openvino", best, "--out", best.parent / "detector"]
        print(f"next: {shlex.join(map(str, command))}")
    return 1 if any(file.broken for file in catalog.quarantine) else 0


def tell_files(files: Iterable[tuple[object, str]]) -> None:
    """Name the first files that were left out on standard error, given as (path, reason)."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    for line in left_out_lines(list(files)):
        console.print(line, markup=False)


def tell_epoch(row: Mapping[str, Any]) -> None:
    """Print an epoch's figures in one line."""
    if "stride" in row:
        progress = f"teacher's map of stride {row['stride']}"
    else:
        progress = f"validation loss {row['valid_loss']:.3f}  AUC {row['auc']:.4f}"
    Console(highlight=False, soft_wrap=True).print(
        f"epoch {row['epoch']:3d}  training loss {row['train_loss']:.3f}  {progress}  "
        f"{row['images_per_second']:.1f} images/s, {row['waiting']:.0%} waiting for pictures"
    )
