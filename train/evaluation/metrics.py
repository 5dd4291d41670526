"""Figures of a detector, each with its bootstrap interval. The positive class is fake; curves are scikit-learn's."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import sklearn
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from edge_runtime.errors import DataError
from train.data.catalog import SEED

Figure = dict[str, float]
"""`value`, and `low` and `high`, the bounds of its interval."""

INTERVAL = (2.5, 97.5)
"""Percentiles of the bootstrap distribution: an interval of 95 %."""

BINS = 15
"""Bins of equal width for the expected calibration error (Guo et al. 2017)."""

FIGURE_NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "auc": "AUC",
    "average_precision": "average precision",
    "eer": "EER",
    "tpr_at_1_fpr": "TPR at 1 % FPR",
    "tpr_at_5_fpr": "TPR at 5 % FPR",
    "brier": "Brier score",
    "ece": "ECE",
}
"""What readers call the figures, in the order in which they are listed."""

NEEDS_BOTH = ("auc", "average_precision", "eer", "tpr_at_1_fpr", "tpr_at_5_fpr", "balanced_accuracy")


def measure(
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    threshold: float = 0.5,
    groups: Sequence[str] | None = None,
    bootstrap: int = 1000,
    seed: int = SEED,
) -> dict[str, Figure]:
    """Return every figure with a bootstrap interval of 95 %.

    Args:
        labels: [N], 0 real, 1 fake.
        scores: [N], probability of fake in [0, 1].
        threshold: a score of at least this counts as fake.
        groups: [N], what is drawn together (an identity, a source); each picture by itself where None.
        bootstrap: number of resamples; with 0 the bounds are the value.
        seed: of the resampling.

    Returns:
        By name: accuracy, auc, average_precision, eer, tpr_at_1_fpr, tpr_at_5_fpr, balanced_accuracy, precision,
        recall, f1, brier, ece and the counts tn, fp, fn, tp; nan where a figure needs the other class.

    Raises:
        DataError: there is nothing to measure, or labels and scores do not match.
    """
    truth, score = _checked(labels, scores)
    rows = [_figures(truth, score, threshold, weights) for weights in resamples(len(truth), groups, bootstrap, seed)]
    value = _figures(truth, score, threshold, np.ones(len(truth)))
    return {name: _figure(value[name], [row[name] for row in rows]) for name in value}


def auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the area under the ROC curve; nan where one class is missing."""
    truth, score = _checked(labels, scores)
    return float(roc_auc_score(truth, score)) if 0 < truth.sum() < len(truth) else float("nan")


def paired_bootstrap(
    labels: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    *,
    figure: str = "auc",
    threshold: float | tuple[float, float] = 0.5,
    groups: Sequence[str] | None = None,
    bootstrap: int = 1000,
    seed: int = SEED,
) -> Figure:
    """Return how much `figure` changes from the scores `first` to `second` of the same pictures, with its interval.

    `threshold` is one for both, or one for each.
    """
    truth, before = _checked(labels, first)
    _, after = _checked(labels, second)
    low, high = threshold if isinstance(threshold, tuple) else (threshold, threshold)

    if figure == "auc":
        first_auc, second_auc = pairwise_auc(truth, before), pairwise_auc(truth, after)
        rows = [second_auc(weights) - first_auc(weights) for weights in resamples(len(truth), groups, bootstrap, seed)]
        even = np.ones(len(truth))
        return _figure(second_auc(even) - first_auc(even), rows)

    def change(weights: NDArray[np.float64]) -> float:
        return _figures(truth, after, high, weights)[figure] - _figures(truth, before, low, weights)[figure]

    rows = [change(weights) for weights in resamples(len(truth), groups, bootstrap, seed)]
    return _figure(change(np.ones(len(truth))), rows)


def measure_decided(
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    low: float,
    high: float,
    groups: Sequence[str] | None = None,
    bootstrap: int = 1000,
    seed: int = SEED,
) -> dict[str, Figure]:
    """Return what the two thresholds do, each figure with a bootstrap interval of 95 %.

    Returns:
        By name: `fpr` (share of reals called fake), `fnr` (share of fakes called real), `coverage` (share that is
        decided at all), `error` and `accuracy` (among the decided).
    """
    truth, score = _checked(labels, scores)
    rows = [_decided(truth, score, low, high, weights) for weights in resamples(len(truth), groups, bootstrap, seed)]
    value = _decided(truth, score, low, high, np.ones(len(truth)))
    return {name: _figure(value[name], [row[name] for row in rows]) for name in value}


def _decided(
    truth: NDArray[np.int64], score: NDArray[np.float64], low: float, high: float, weights: NDArray[np.float64]
) -> dict[str, float]:
    called_fake = score >= high
    called_real = (score <= low) & ~called_fake
    false_alarms = float(weights[called_fake & (truth == 0)].sum())
    misses = float(weights[called_real & (truth == 1)].sum())
    decided = float(weights[called_fake | called_real].sum())
    error = _share(false_alarms + misses, decided)
    return {
        "fpr": _share(false_alarms, float(weights[truth == 0].sum())),
        "fnr": _share(misses, float(weights[truth == 1].sum())),
        "coverage": _share(decided, float(weights.sum())),
        "error": error,
        "accuracy": 1.0 - error,
    }


def pairwise_auc(truth: NDArray[np.int64], score: NDArray[np.float64]) -> Callable[[NDArray[np.float64]], float]:
    """Return the AUC as a function of the pictures' weights [N]: the share of pairs of a fake and a real in order.

    For many resamples this is a hundred times faster than a ROC curve for each.
    """
    fake, real = truth == 1, truth == 0
    ahead = score[fake][:, None] - score[real][None, :]
    in_order = (ahead > 0) + 0.5 * (ahead == 0)

    def auc(weights: NDArray[np.float64]) -> float:
        pairs = weights[fake].sum() * weights[real].sum()
        return float(weights[fake] @ in_order @ weights[real] / pairs) if pairs else float("nan")

    return auc


def resamples(count: int, groups: Sequence[str] | None, bootstrap: int, seed: int) -> list[NDArray[np.float64]]:
    """Return `bootstrap` weights [N]: how often each picture is in a resample of whole groups."""
    generator = np.random.default_rng(seed)
    members = np.arange(count) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    size = int(members.max()) + 1
    even = np.full(size, 1.0 / size)
    return [generator.multinomial(size, even)[members].astype(np.float64) for _ in range(bootstrap)]


def _checked(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    truth, score = np.asarray(labels, dtype=np.int64), np.asarray(scores, dtype=np.float64)
    if truth.shape != score.shape or truth.ndim != 1 or not len(truth):
        raise DataError(f"{truth.shape} labels and {score.shape} scores: give one score for each of at least one face")
    if not np.isfinite(score).all():
        raise DataError(f"{int((~np.isfinite(score)).sum())} scores are no number; leave unreadable pictures out")
    return truth, score


def _figures(
    truth: NDArray[np.int64], score: NDArray[np.float64], threshold: float, weights: NDArray[np.float64]
) -> dict[str, float]:
    used = weights > 0
    truth, score, weights = truth[used], score[used], weights[used]
    counts = _counts(truth, score >= threshold, weights)
    return {
        **_rates(counts),
        **_curves(truth, score, weights),
        "brier": float(np.average((score - truth) ** 2, weights=weights)),
        "ece": _calibration_error(truth, score, weights),
        **counts,
    }


def _counts(truth: NDArray[np.int64], called: NDArray[np.bool_], weights: NDArray[np.float64]) -> dict[str, float]:
    fake = truth == 1
    return {
        "tn": float(weights[~fake & ~called].sum()),
        "fp": float(weights[~fake & called].sum()),
        "fn": float(weights[fake & ~called].sum()),
        "tp": float(weights[fake & called].sum()),
    }


def _rates(counts: Mapping[str, float]) -> dict[str, float]:
    tn, fp, fn, tp = (counts[name] for name in ("tn", "fp", "fn", "tp"))
    recall = _share(tp, tp + fn)
    return {
        "accuracy": _share(tn + tp, tn + fp + fn + tp),
        "balanced_accuracy": (recall + _share(tn, tn + fp)) / 2,
        "precision": _share(tp, tp + fp),
        "recall": recall,
        "f1": _share(2 * tp, 2 * tp + fp + fn),
    }


def _share(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")


def _curves(truth: NDArray[np.int64], score: NDArray[np.float64], weights: NDArray[np.float64]) -> dict[str, float]:
    names = ("auc", "average_precision", "eer", "tpr_at_1_fpr", "tpr_at_5_fpr")
    if not 0 < truth.sum() < len(truth):
        return dict.fromkeys(names, float("nan"))
    with sklearn.config_context(assume_finite=True, skip_parameter_validation=True):
        fpr, tpr, _ = roc_curve(truth, score, sample_weight=weights, drop_intermediate=False)
        precision = float(average_precision_score(truth, score, sample_weight=weights))
    values = (float(np.trapezoid(tpr, fpr)), precision, equal_error_rate(fpr, tpr))
    return dict(zip(names, (*values, rate_at(fpr, tpr, 0.01), rate_at(fpr, tpr, 0.05)), strict=True))


def equal_error_rate(fpr: NDArray[np.float64], tpr: NDArray[np.float64]) -> float:
    """Return the rate where false alarms and misses are equally frequent, between points of the ROC curve."""
    gap = fpr + tpr - 1.0
    after = int(np.argmax(gap >= 0))
    before = max(after - 1, 0)
    rise = gap[after] - gap[before]
    share = -gap[before] / rise if rise else 0.0
    return float(fpr[before] + share * (fpr[after] - fpr[before]))


def rate_at(fpr: NDArray[np.float64], tpr: NDArray[np.float64], limit: float) -> float:
    """Return the highest true positive rate whose false positive rate is at most `limit`."""
    return float(tpr[fpr <= limit].max())


def _calibration_error(truth: NDArray[np.int64], score: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    bins = np.minimum((score * BINS).astype(np.int64), BINS - 1)
    gap = np.bincount(bins, weights * (score - truth), BINS)
    return float(np.abs(gap).sum() / weights.sum())


def _figure(value: float, rows: Sequence[float]) -> Figure:
    found = [row for row in rows if np.isfinite(row)]
    low, high = np.percentile(found, INTERVAL) if found else (value, value)
    return {"value": float(value), "low": float(low), "high": float(high)}
