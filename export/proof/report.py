"""The bundle's own report, as HTML and Markdown: what was measured, and which INT8 network ships and why."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from edge_runtime.model.contract import DEMO_NOTICE, ModelContract
from edge_runtime.model.golden import Golden
from export.int8.gate import EQUAL, Difference, GateLimits, GateResult
from export.proof.certificate import Certificate
from train.evaluation.metrics import FIGURE_NAMES, Figure
from train.report.html import Section, Table, figure_text, write_report

FIGURES = ("auc", "accuracy", "f1", "eer", "tpr_at_1_fpr", "tpr_at_5_fpr", "ece")
CHANGES = ("max Δ logit", "mean Δ logit", "max Δ score", "mean Δ score", "changed decisions")


def write_export_report(
    path: Path,
    *,
    contract: ModelContract,
    certificate: Certificate,
    results: Sequence[GateResult],
    chosen: str,
    limits: GateLimits,
    golden: Golden,
    notes: Sequence[str],
    tools: Mapping[str, str],
) -> None:
    """Write the report at `path` (.html), and the same as Markdown beside it; `chosen` names the result that ships."""
    side = contract.input_size
    words = [
        f"Architecture {contract.architecture}, version {contract.version}, input {side}×{side} pixels, labels "
        f"{', '.join(contract.labels)} (index 1, fake, is the positive class)."
    ]
    if contract.demo:
        words.append(f"This is a {DEMO_NOTICE}.")
    sections = [
        Section("What this is", [*words, *notes]),
        Section("From PyTorch to the board", certificate_blocks(certificate)),
        Section("How good it is", [metrics_table(contract)]),
        Section("How logits are read", [calibration_table(contract)]),
    ]
    if results:
        sections.append(Section("Which INT8, and why", candidate_blocks(results, chosen, limits)))
    sections.append(Section("Golden pictures", golden_blocks(golden)))
    sections.append(Section("Made with", [Table(("tool", "version"), sorted(tools.items()))]))
    write_report(path, f"Export of {contract.architecture} {contract.version}", sections)


def certificate_blocks(certificate: Certificate) -> list[str | Table]:
    """Return the certificate as a paragraph and two tables."""
    words = (
        f"Measured on {certificate.faces} labelled faces that did not calibrate; FP32's logit of fake less logit of "
        f"real spreads over {certificate.spread:.1f}. “On the board” is a process capped to the board's instruction "
        "set (SSE4.2). Scores and decisions are read as FP32's: with its temperature, quality groups "
        "and balanced threshold."
    )

    def changes(change: Difference | None) -> list[str]:
        if change is None:
            return ["–"] * len(CHANGES)
        figures = (change.max_logit, change.mean_logit, change.max_score, change.mean_score)
        return [*(f"{value:.2g}" for value in figures), f"{change.changed} of {change.faces}"]

    against_pytorch, steps = [], []
    for stage in certificate.stages:
        auc = "–" if stage.auc is None else f"{stage.auc:.4f}"
        against_pytorch.append([stage.name, auc, *changes(stage.from_pytorch)])
        if stage.from_before:
            steps.append([f"{stage.before} → {stage.name}", *changes(stage.from_before)])
    faces = certificate.stages[0].faces
    return [
        words,
        Table(
            ("stage", "AUC", *CHANGES), against_pytorch, f"Against PyTorch, on the {faces} faces that went through it"
        ),
        Table(("step", *CHANGES), steps, "Each step, on the faces that both stages judged"),
    ]


def metrics_table(contract: ModelContract) -> Table:
    """Return the measured figures by precision, as the board computes FP32 and INT8."""
    rows = [
        [name.upper(), *(figure_text(dict(figures[key])) for key in FIGURES)]
        for name, figures in contract.metrics.items()
        if all(key in figures for key in FIGURES)
    ]
    head = ("precision", *(FIGURE_NAMES[key] for key in FIGURES))
    return Table(head, rows, "With intervals of 95 %; thresholds are fitted on these faces")


def calibration_table(contract: ModelContract) -> Table:
    """Return temperature, bias and thresholds by precision, and the error rates aimed at and proven."""
    rows = []
    for name, reading in contract.calibrations.items():
        thresholds = (f"{value:.4f}" for value in (reading.low, reading.high, reading.balanced))
        sides = (
            (reading.max_fpr, reading.fpr_bound, reading.reals),
            (reading.max_fnr, reading.fnr_bound, reading.fakes),
        )
        proven = (f"aim {aim:.1%}" + (f", proven {bound:.1%} ({n} faces)" if n else "") for aim, bound, n in sides)
        rows.append([name, f"{reading.temperature:.3f}", f"{reading.bias:+.3f}", *thresholds, *proven])
    columns = ("temperature", "bias", "real up to", "fake from", "balanced", "reals called fake", "fakes called real")
    return Table(
        ("precision", *columns),
        rows,
        "Proven: no larger share, with 95 % confidence, of faces like the measured ones; a person or video counts once",
    )


def candidate_blocks(results: Sequence[GateResult], chosen: str, limits: GateLimits) -> list[str | Table]:
    """Return the rule by which one candidate was chosen, and a table of all."""
    words = (
        f"Limits under the board's instruction set, against FP32 under the same: AUC loss {limits.auc_loss:g}, changed "
        f"decisions {limits.changed:.1%}. From workstation to board: changed decisions {limits.board_changed:.1%}, "
        f"score change {limits.board_score:g}. Of the candidates within the limits, the one ships that changes the "
        "fewest decisions on the board; ties go to the smallest gap between workstation and board."
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
        "changed decisions, workstation → board",
        "verdict",
    )
    rows = [
        [
            result.name,
            f"{result.auc:.4f}",
            signed(result.auc_change),
            f"{result.against_fp32.changed} of {result.against_fp32.faces}",
            f"{result.against_fp32.mean_logit:.2g}",
            f"{result.to_board.max_logit:.2g}",
            f"{result.to_board.moved} of {result.to_board.faces}",
            f"{result.to_board.max_score:.2g}",
            str(result.to_board.changed),
            "; ".join(map(str, result.refusals)) or ("ships" if result.name == chosen else "within the limits"),
        ]
        for result in results
    ]
    return [words, Table(head, rows)]


def signed(figure: Figure) -> str:
    """Return a change with its interval: `−0.0015 (−0.0042 to +0.0011)`."""
    value, low, high = (f"{figure[name]:+.4f}".replace("-", "−") for name in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def golden_blocks(golden: Golden) -> list[str | Table]:
    """Return how far a device may be from the golden answers."""
    words = (
        f"{len(golden.pictures)} faces with known logits. Before a device runs this bundle it judges these: its "
        "answers must be within the tolerance of the answers under one of the instruction sets."
    )
    rows = [[name.upper(), f"{value['CPU']:.2g}", f"{value['GPU']:.2g}"] for name, value in golden.tolerance.items()]
    return [words, Table(("precision", "CPU: max Δ logit", "GPU and other half-precision devices: max Δ logit"), rows)]
