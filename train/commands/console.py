"""What the commands of training say on the terminal."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from edge_runtime.model.contract import LABELS
from train.commands.prepare import AUDIT, Prepared
from train.data.build import CATALOG, SPLITS
from train.data.catalog import left_out_lines
from train.evaluation.evaluation import Evaluation
from train.evaluation.metrics import FIGURE_NAMES
from train.evaluation.shortcuts import tell_faults
from train.report.html import figure_text

if TYPE_CHECKING:
    from train.commands.train import Trained

TOLD = ("auc", "accuracy", "balanced_accuracy", "f1", "eer", "tpr_at_1_fpr", "tpr_at_5_fpr")


def tell_prepared(prepared: Prepared, out: Path) -> int:
    """Print how many faces there are in each split and what the audit found; return the exit code."""
    console = Console(highlight=False)
    table = Table("split", *LABELS)
    for split in SPLITS:
        counts = Counter(face.label for face in prepared.catalog.split(split))
        table.add_row(split, *(str(counts[label]) for label in range(len(LABELS))))
    console.print(table)
    tell_files([(file.path, file.reason) for file in prepared.catalog.quarantine])
    console.print(f"catalog: {out / CATALOG}", soft_wrap=True)
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    for gap in prepared.gaps:
        errors.print(f"warning: {gap}", markup=False)
    wanting = bool(prepared.gaps) or any(file.broken for file in prepared.catalog.quarantine)
    if prepared.audit is None:
        console.print("audit: too few faces")
        return 1 if wanting else 0
    console.print(f"audit: {out / AUDIT}", soft_wrap=True)
    for finding in prepared.audit.warnings:
        console.print(f"warning: {finding.name} tells the classes apart (AUC {figure_text(finding.auc, 2)})")
    if prepared.audit.faults:
        errors.print(f"fault: {tell_faults(prepared.audit)}")
    return 1 if prepared.audit.faults or wanting else 0


def tell_evaluation(evaluation: Evaluation, out: Path) -> None:
    """Print the figures that matter most, and where the rest is."""
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
    for alarm in evaluation.alarms:
        console.print(f"warning: {alarm}", soft_wrap=True)
    tell_files([*((path, "can't be read") for path in data["unreadable"]), *data["left_out"].items()])
    console.print(f"report: {out / 'report.html'}", soft_wrap=True)


def tell_trained(trained: "Trained") -> int:
    """Print what the best checkpoint is worth and where it is; return the exit code."""
    evaluation, left_out = trained.evaluation, trained.catalog.quarantine
    if evaluation is not None:
        tell_evaluation(evaluation, trained.best.parent)
        tell_files([(file.path, file.reason) for file in left_out])
        print(f"checkpoint: {trained.best}")
    return 1 if any(file.broken for file in left_out) else 0


def tell_files(files: Iterable[tuple[object, str]]) -> None:
    """Name the first files that were left out, on standard error."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    for line in left_out_lines(list(files)):
        console.print(line, markup=False)


def tell_epoch(row: Mapping[str, Any]) -> None:
    """Print an epoch's figures in one line."""
    judged = (
        f"its teacher's map of stride {row['stride']}"
        if "stride" in row
        else f"valid loss {row['valid_loss']:.3f}  AUC {row['auc']:.4f}"
    )
    Console(highlight=False, soft_wrap=True).print(
        f"epoch {row['epoch']:3d}  loss {row['train_loss']:.3f}  {judged}  "
        f"{row['images_per_second']:.1f} images/s, {row['waiting']:.0%} waiting"
    )
