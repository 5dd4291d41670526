"""The plots of reports, drawn by matplotlib without a display; each can be read at the width of a phone."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from sklearn.calibration import calibration_curve
from sklearn.metrics import precision_recall_curve, roc_curve

from train.report.html import Gallery, Picture

REAL, FAKE, LINE = "#2b7a4b", "#b3382c", "#33518c"


def roc_and_precision(labels: ArrayLike, scores: ArrayLike) -> Gallery:
    """Draw the ROC curve (also with a logarithmic axis) and the precision-recall curve."""
    fpr, tpr, _ = roc_curve(labels, scores)
    precision, recall, _ = precision_recall_curve(labels, scores)
    whole, start, tradeoff = (_axes() for _ in range(3))
    whole.plot(fpr, tpr, color=LINE)
    start.semilogx(np.maximum(fpr, 1e-4), tpr, color=LINE)
    tradeoff.plot(recall, precision, color=LINE)
    false_alarms, found = "real faces called fake (FPR)", "fakes found (TPR)"
    return Gallery(
        (
            _picture(whole, false_alarms, found, "ROC curve"),
            _picture(start, f"{false_alarms}, logarithmic", found, "ROC curve with a logarithmic axis"),
            _picture(tradeoff, "fakes found (recall)", "precision (fakes among called fake)", "precision-recall curve"),
        )
    )


def reliability(labels: NDArray[np.int64], scores: NDArray[np.float64], low: float, high: float) -> Gallery:
    """Draw how often a score is right, and the scores of both classes with the two thresholds."""
    diagram, histogram = _axes(), _axes()
    share, mean = calibration_curve(labels, scores, n_bins=10)
    diagram.plot([0, 1], [0, 1], color="0.7", linestyle="--")
    diagram.plot(mean, share, marker="o", color=LINE)
    for label, name, colour in ((0, "real", REAL), (1, "fake", FAKE)):
        histogram.hist(scores[labels == label], bins=40, range=(0, 1), alpha=0.6, label=name, color=colour)
    for threshold in (low, high):
        histogram.axvline(threshold, color="0.3", linestyle=":")
    histogram.set_yscale("log")
    histogram.legend()
    return Gallery(
        (
            _picture(diagram, "score", "share of fakes", "reliability diagram"),
            _picture(histogram, "score (dotted: thresholds)", "faces, logarithmic", "histogram of scores"),
        )
    )


def risk_coverage(coverage: NDArray[np.float64], risk: NDArray[np.float64]) -> Picture:
    """Draw the error among the decided faces against the share that is decided."""
    axes = _axes()
    axes.plot(coverage, risk, color=LINE)
    return _picture(axes, "share of faces decided (coverage)", "error among the decided", "risk-coverage curve")


def training_curves(history: Sequence[Mapping[str, Any]]) -> Gallery:
    """Draw loss, accuracy and AUC by epoch; epochs without a figure are left out of its line."""
    panels = (
        ("loss", "loss by epoch", {"train_loss": "training", "valid_loss": "validation"}),
        ("accuracy", "accuracy by epoch", {"train_accuracy": "training", "valid_accuracy": "validation"}),
        ("AUC on validation", "AUC by epoch", {"auc": ""}),
    )
    pictures = []
    for unit, text, lines in panels:
        axes = _axes()
        for key, name in lines.items():
            known = [row for row in history if key in row]
            axes.plot([row["epoch"] for row in known], [row[key] for row in known], label=name)
        if len(lines) > 1:
            axes.legend()
        pictures.append(_picture(axes, "epoch", unit, text))
    return Gallery(pictures)


def _axes() -> Axes:
    axes: Axes = Figure(figsize=(4.4, 3.2), layout="constrained").subplots()
    return axes


def _picture(axes: Axes, x: str, y: str, text: str) -> Picture:
    """Label the axes and return their figure; `text` stands for it where it can't be seen."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    buffer = io.BytesIO()
    figure = axes.get_figure(root=True)
    if figure:
        figure.savefig(buffer, format="png", dpi=150)
    return Picture(buffer.getvalue(), text)
