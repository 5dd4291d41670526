"""The bundle's own report: what was measured, what was tried for INT8 and why this one, as HTML and Markdown."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from edge_runtime.model.contract import DEMO_NOTICE, Calibration, ModelContract
from edge_runtime.model.golden import Golden
from export.int8.gate import EQUAL, Difference, Limits, Tried
from export.proof.certificate import Certificate, Stage
from train.evaluation.metrics import FIGURE_NAMES, Figure
from train.report.html import Section, Table, figure_text, write_report

FIGURES = ("auc", "accuracy", "f1", "eer", "tpr_at_1_fpr", "tpr_at_5_fpr", "ece")


def write_export_report(
    path: Path,
    *,
    contract: ModelContract,
    certificate: Certificate | None,
    tried: Sequence[Tried],
    chosen: str,
    limits: Limits,
    golden: Golden,
    notes: Sequence[str],
    tools: Mapping[str, str],
) -> None:
    """Write the report at `path` (.html) and its Markdown twin."""
    sections = [Section("What this is", _introduction(contract, notes))]
    if certificate:
        sections.append(Section("From PyTorch to the board", certificate_blocks(certificate)))
        sections.append(Section("How good it is", [metrics_table(contract)]))
        sections.append(Section("How logits are read", [calibration_table(contract)]))
    if tried:
        sections.append(Section("Which INT8, and why", candidate_blocks(tried, chosen, limits)))
    sections.append(Section("Golden pictures", golden_blocks(golden)))
    sections.append(Section("Made with", [Table(("tool", "version"), sorted(tools.items()))]))
    write_report(path, f"Export of {contract.architecture} {contract.version}", sections)


def _introduction(contract: ModelContract, notes: Sequence[str]) -> list[str]:
    words = [
        f"Architecture {contract.architecture}, version {contract.version}, input {contract.input_size}×"
        f"{contract.input_size}, labels {', '.join(contract.labels)} (index 1, fake, is the positive class)."
    ]
    if contract.demo:
        words.append(f"This is a {DEMO_NOTICE}.")
    return [*words, *notes]


def certificate_blocks(certificate: Certificate) -> list[str | Table]:
    """Return the certificate as a paragraph and two tables."""
    words = (
        f"Measured on {certificate.faces} labelled faces that took no part in calibrating; FP32's logit of fake less "
        f"logit of real spreads over {certificate.spread:.1f}. “On the board” is a process capped to the board's "
        "instruction set (SSE4.2). Scores and decisions are read with FP32's temperature and balanced threshold."
    )
    head = ("stage", "faces", "AUC", "max Δ logit", "mean Δ logit", "max Δ score", "mean Δ score", "changed decisions")
    from_pytorch = [_row(stage, stage.from_pytorch) for stage in certificate.stages]
    steps = [_row(stage, stage.from_before, f"{stage.before} → ") for stage in certificate.stages if stage.from_before]
    return [
        words,
        Table(head, from_pytorch, "Against PyTorch, on the faces that went through it"),
        Table(head, steps, "Each step"),
    ]


def _row(stage: Stage, change: Difference | None, before: str = "") -> list[str]:
    auc = "–" if stage.auc is None else f"{stage.auc:.4f}"
    if change is None:
        return [f"{before}{stage.name}", str(stage.faces), auc, "–", "–", "–", "–", "–"]
    figures = (change.max_logit, change.mean_logit, change.max_score, change.mean_score)
    decisions = f"{change.changed} of {change.faces}"
    return [f"{before}{stage.name}", str(change.faces), auc, *(f"{value:.2g}" for value in figures), decisions]


def metrics_table(contract: ModelContract) -> Table:
    """Return the measured figures by precision, INT8's as the board computes it."""
    rows = []
    for name, figures in contract.metrics.items():
        if all(key in figures for key in FIGURES):
            rows.append([name.upper(), *(figure_text(dict(figures[key])) for key in FIGURES)])
    return Table(
        ("precision", *(FIGURE_NAMES[key] for key in FIGURES)),
        rows,
        "Intervals of 95 %; thresholds fitted on these faces",
    )


def calibration_table(contract: ModelContract) -> Table:
    """Return temperature and thresholds by precision, and which shares of errors the thresholds are fitted to."""
    head = ("precision", "temperature", "real up to", "fake from", "balanced", "reals called fake", "fakes called real")
    return Table(head, [_calibration_row(name, reading) for name, reading in contract.calibrations.items()])


def _calibration_row(name: str, reading: Calibration) -> list[str]:
    thresholds = (f"{value:.4f}" for value in (reading.low, reading.high, reading.balanced))
    allowed = (f"at most {100 * share:g} %" for share in (reading.max_fpr, reading.max_fnr))
    return [name, f"{reading.temperature:.3f}", *thresholds, *allowed]


def candidate_blocks(tried: Sequence[Tried], chosen: str, limits: Limits) -> list[str | Table]:
    """Return the candidates' table and the rule by which one was chosen."""
    words = (
        f"Limits under the board's instruction set, against FP32 under the same: AUC loss {limits.auc_loss:g}, changed "
        f"decisions {limits.changed:.1%}. From workstation to board: changed decisions {limits.board_changed:.1%}, "
        f"score change {limits.board_score:g}. Of those within the limits the one ships that changes the fewest "
        "decisions on the board, among equals the one on which workstation and board agree best."
    )
    head = (
        "candidate",
        "AUC on the board",
        "AUC change",
        "changed decisions",
        "mean Δ logit",
        "workstation → board: max Δ logit",
        f"faces over {EQUAL:g}",
        "max Δ score",
        "changed",
        "verdict",
    )
    return [words, Table(head, [_candidate_row(candidate, chosen) for candidate in tried])]


def _candidate_row(candidate: Tried, chosen: str) -> list[str]:
    verdict = "; ".join(candidate.failed) or ("ships" if candidate.name == chosen else "within the limits")
    return [
        candidate.name,
        f"{candidate.auc:.4f}",
        signed(candidate.auc_change),
        f"{candidate.against_fp32.changed} of {candidate.against_fp32.faces}",
        f"{candidate.against_fp32.mean_logit:.2g}",
        f"{candidate.to_board.max_logit:.2g}",
        f"{candidate.to_board.moved} of {candidate.to_board.faces}",
        f"{candidate.to_board.max_score:.2g}",
        str(candidate.to_board.changed),
        verdict,
    ]


def signed(figure: Figure) -> str:
    """Return a change with its interval: `−0.0015 (−0.0042 to +0.0011)`."""
    value, low, high = (f"{figure[name]:+.4f}".replace("-", "−") for name in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def golden_blocks(golden: Golden) -> list[str | Table]:
    """Return what a device may differ by."""
    words = (
        f"{len(golden.pictures)} drawn faces with known logits: a device that is to run this bundle first judges "
        "these. A right answer is within the tolerance of the answers under some instruction set."
    )
    rows = [[name.upper(), f"{value['CPU']:.2g}", f"{value['GPU']:.2g}"] for name, value in golden.tolerance.items()]
    return [words, Table(("precision", "CPU: max Δ logit", "GPU and other half-precision devices"), rows)]
