"""The report of the shortcut audit."""

from pathlib import Path

from train.evaluation.shortcuts import CONTENT_FAULT, CONTENT_WARNING, FAULT, Audit, State
from train.report.html import Section, Table, figure_text, write_report


def write_audit(path: Path, audit: Audit) -> None:
    """Write the audit as an HTML report, and as Markdown beside it."""
    rows = [
        (
            finding.name,
            figure_text(finding.auc),
            finding.state.value,
            "" if finding.state == State.FINE else finding.remedy,
        )
        for finding in audit.findings
    ]
    explanation = [
        f"How well a cross-validated model tells real from fake without looking at a face, on {audit.faces} faces. "
        "An AUC of 0.5 is chance, 1 is certainty; in brackets its interval of 95 %.",
        f"Metadata are a fault if the lower bound is above {FAULT}: a detector trained on these pictures may learn "
        "nothing else. The 8×8 thumbnail shows bias of content (backgrounds, framing, ages): a warning above "
        f"{CONTENT_WARNING}, a fault if the lower bound is above {CONTENT_FAULT}.",
    ]
    table = Table(("property", "AUC", "state", "what to do"), rows, text=True)
    write_report(
        path, "Shortcut audit", [Section("Verdict", [audit_verdict(audit)]), Section("Findings", [*explanation, table])]
    )


def audit_verdict(audit: Audit) -> str:
    """Return in one line whether the data are fit for training."""
    if not audit.faults:
        return "Fit for training."
    faults = (
        f"{finding.name} tells the classes apart (AUC {figure_text(finding.auc, 2)}): {finding.remedy}"
        for finding in audit.faults
    )
    return f"Not fit for training: {'; '.join(faults)}"
