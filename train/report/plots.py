"""The plots of reports, drawn by matplotlib without a display."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from sklearn.calibration import calibration_curve
from sklearn.metrics import precision_recall_curve, roc_curve

from train.report.html import Picture, plot

REAL, FAKE, LINE = "#2b7a4b", "#b3382c", "#33518c"


def roc_and_precision(labels: ArrayLike, scores: ArrayLike) -> Picture:
    """Draw the ROC curve (false positive rate on a logarithmic axis too) and the precision-recall curve."""
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    whole, low, pr = figure.subplots(1, 3)
    fpr, tpr, _ = roc_curve(labels, scores)
    precision, recall, _ = precision_recall_curve(labels, scores)
    whole.plot(fpr, tpr, color=LINE)
    low.semilogx(np.maximum(fpr, 1e-4), tpr, color=LINE)
    pr.plot(recall, precision, color=LINE)
    for axes, x, y in ((whole, "FPR", "TPR"), (low, "FPR (log)", "TPR"), (pr, "recall", "precision")):
        _label(axes, x, y)
    return plot(figure, "ROC and precision-recall curves")


def reliability(labels: NDArray[np.int64], scores: NDArray[np.float64], low: float, high: float) -> Picture:
    """Draw how often a score is right, and the histograms of both classes with the two thresholds."""
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    share, mean = calibration_curve(labels, scores, n_bins=10)
    left.plot([0, 1], [0, 1], color="0.7", linestyle="--")
    left.plot(mean, share, marker="o", color=LINE)
    _label(left, "score", "share of fakes")
    for label, name, colour in ((0, "real", REAL), (1, "fake", FAKE)):
        right.hist(scores[labels == label], bins=40, range=(0, 1), alpha=0.6, label=name, color=colour)
    for threshold in (low, high):
        right.axvline(threshold, color="0.3", linestyle=":")
    right.set_yscale("log")
    right.legend()
    _label(right, "score", "faces")
    return plot(figure, "reliability diagram and score histograms")


def risk_coverage(coverage: NDArray[np.float64], risk: NDArray[np.float64]) -> Picture:
    """Draw the error among the decided against the share that is decided."""
    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.plot(coverage, risk, color=LINE)
    _label(axes, "coverage", "error among the decided")
    return plot(figure, "risk-coverage curve")


def training_curves(history: Sequence[Mapping[str, Any]]) -> Picture:
    """Draw loss, accuracy and AUC by epoch; an epoch without a figure is left out of its line."""
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    loss, accuracy, area = figure.subplots(1, 3)
    panels = (
        (loss, "loss", ("train_loss", "valid_loss")),
        (accuracy, "accuracy", ("train_accuracy", "valid_accuracy")),
        (area, "AUC on validation", ("auc",)),
    )
    for axes, title, names in panels:
        for name in names:
            known = [row for row in history if name in row]
            axes.plot([row["epoch"] for row in known], [row[name] for row in known], label=name.split("_")[0])
        _label(axes, "epoch", title)
        if len(names) > 1:
            axes.legend()
    return plot(figure, "training and validation curves")


def _label(axes: Any, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
