"""Figures of a detector, each with its bootstrap interval. Fake is the positive class."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import sklearn
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from edge_runtime.errors import DataError
from train.data.catalog import SEED
from train.evaluation.calibrate import proven_share

Figure = dict[str, float]
"""`value`, and the bounds `low` and `high` of its interval; for a share of 0 also `of`, how many faces it is of.

The bootstrap of a share of 0 or 1 is always the same, so its other bound is that of Clopper and Pearson.
"""

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
"""The figures' names in reports, in their order."""

RANKING = ("auc", "average_precision", "eer", "tpr_at_1_fpr", "tpr_at_5_fpr")
"""Figures that need no threshold."""


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
        groups: [N], faces of one group are resampled together (an identity); None: each face alone.
        bootstrap: number of resamples; with 0 the bounds are the value.
        seed: of the resampling.

    Returns:
        By name: the keys of FIGURE_NAMES and the counts tn, fp, fn, tp; NaN where a figure needs the other class.

    Raises:
        DataError: there is nothing to measure, or labels and scores do not match.
    """
    truth, score = _checked(labels, scores)
    found = bootstrapped(
        lambda weights: _figures(truth, score, threshold, weights), len(truth), groups, bootstrap, seed
    )
    fakes = int(truth.sum())
    found_fakes = dict.fromkeys(("recall", "tpr_at_1_fpr", "tpr_at_5_fpr"), fakes)
    called = int((score >= threshold).sum())
    smaller = min(fakes, len(truth) - fakes)
    return _bounded(found, {**found_fakes, "auc": smaller, "accuracy": len(truth), "precision": called, "eer": smaller})


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
    """Return what the two thresholds do, each figure with a bootstrap interval of 95 %; see `measure` for the rest.

    Returns:
        By name: `fpr` (share of real faces called fake), `fnr` (share of fakes called real), `coverage` (share of faces
        that are decided), `error` and `accuracy` (among the decided).
    """
    truth, score = _checked(labels, scores)
    found = bootstrapped(decided_figures(truth, score, low, high), len(truth), groups, bootstrap, seed)
    fakes, decided = int(truth.sum()), int(((score >= high) | (score <= low)).sum())
    of = {"fpr": len(truth) - fakes, "fnr": fakes, "coverage": len(truth), "error": decided, "accuracy": decided}
    return _bounded(found, of)


def decided_figures(
    truth: NDArray[np.int64], score: NDArray[np.float64], low: float, high: float
) -> Callable[[NDArray[np.float64]], dict[str, float]]:
    """Return the figures of `measure_decided` as a function of the faces' weights [N]."""
    called_fake = score >= high
    called_real = (score <= low) & ~called_fake
    false_alarm, miss = called_fake & (truth == 0), called_real & (truth == 1)

    def figures(weights: NDArray[np.float64]) -> dict[str, float]:
        decided = float(weights[called_fake | called_real].sum())
        error = _share(float(weights[false_alarm | miss].sum()), decided)
        return {
            "fpr": _share(float(weights[false_alarm].sum()), float(weights[truth == 0].sum())),
            "fnr": _share(float(weights[miss].sum()), float(weights[truth == 1].sum())),
            "coverage": _share(decided, float(weights.sum())),
            "error": error,
            "accuracy": 1.0 - error,
        }

    return figures


def auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the area under the ROC curve; NaN where one class is missing."""
    truth, score = _checked(labels, scores)
    return float(roc_auc_score(truth, score)) if 0 < truth.sum() < len(truth) else float("nan")


def auc_figure(
    labels: ArrayLike,
    scores: ArrayLike,
    *,
    groups: Sequence[str] | None = None,
    bootstrap: int = 1000,
    seed: int = SEED,
) -> Figure:
    """Return the AUC with its interval, as `measure` does but much faster."""
    truth, score = _checked(labels, scores)
    area = pairwise_auc(truth, score)
    found = bootstrapped(lambda weights: {"auc": area(weights)}, len(truth), groups, bootstrap, seed)
    return _bounded(found, {"auc": int(np.bincount(truth, minlength=2).min())})["auc"]


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
    """Return the change of `figure` from the scores `first` to `second` of the same pictures, with its interval.

    `threshold` is one for both, or one for each.
    """
    truth, before = _checked(labels, first)
    _, after = _checked(labels, second)
    low, high = threshold if isinstance(threshold, tuple) else (threshold, threshold)
    if figure == "auc":
        first_auc, second_auc = pairwise_auc(truth, before), pairwise_auc(truth, after)

        def change(weights: NDArray[np.float64]) -> dict[str, float]:
            return {figure: second_auc(weights) - first_auc(weights)}
    else:

        def change(weights: NDArray[np.float64]) -> dict[str, float]:
            gained = _figures(truth, after, high, weights)[figure] - _figures(truth, before, low, weights)[figure]
            return {figure: gained}

    return bootstrapped(change, len(truth), groups, bootstrap, seed)[figure]


def pairwise_auc(truth: NDArray[np.int64], score: NDArray[np.float64]) -> Callable[[NDArray[np.float64]], float]:
    """Return the AUC as a function of the pictures' weights [N]: the share of fake-real pairs in the right order.

    For many resamples this is a hundred times faster than a ROC curve for each.
    """
    fake, real = truth == 1, truth == 0
    ahead = score[fake][:, None] - score[real][None, :]
    in_order = (ahead > 0) + 0.5 * (ahead == 0)

    def auc(weights: NDArray[np.float64]) -> float:
        pairs = weights[fake].sum() * weights[real].sum()
        return float(weights[fake] @ in_order @ weights[real] / pairs) if pairs else float("nan")

    return auc


def calibration_error(truth: NDArray[np.int64], score: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """Return the expected calibration error of scores [N] over BINS bins, each face counted with its weight [N]."""
    bins = np.minimum((score * BINS).astype(np.int64), BINS - 1)
    gaps = np.bincount(bins, weights * (score - truth), BINS)
    return float(np.abs(gaps).sum() / weights.sum())


def _checked(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    truth, score = np.asarray(labels, dtype=np.int64), np.asarray(scores, dtype=np.float64)
    if truth.shape != score.shape or truth.ndim != 1 or not len(truth):
        raise DataError(f"{truth.shape} labels and {score.shape} scores: give one score for each of at least one face")
    if not np.isfinite(score).all():
        raise DataError(f"{int((~np.isfinite(score)).sum())} scores are NaN or infinite; leave unreadable pictures out")
    return truth, score


def bootstrapped(
    figures: Callable[[NDArray[np.float64]], dict[str, float]],
    count: int,
    groups: Sequence[str] | None,
    bootstrap: int,
    seed: int = SEED,
    interval: tuple[float, float] = INTERVAL,
) -> dict[str, Figure]:
    """Return `figures` of equal weights [N], with intervals from `bootstrap` resamples of whole groups.

    `interval` has the percentiles of the bounds.
    """
    generator = np.random.default_rng(seed)
    members = np.arange(count) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    size = int(members.max()) + 1
    even = np.full(size, 1.0 / size)
    rows = [figures(generator.multinomial(size, even)[members].astype(np.float64)) for _ in range(bootstrap)]
    found = {}
    for name, value in figures(np.ones(count)).items():
        drawn = [row[name] for row in rows if np.isfinite(row[name])]
        low, high = np.percentile(drawn, interval) if drawn else (value, value)
        found[name] = {"value": float(value), "low": float(low), "high": float(high)}
    return found


def _bounded(found: dict[str, Figure], of: Mapping[str, int]) -> dict[str, Figure]:
    """Return the figures with bounds for shares of 0 and 1; `of` has the number of faces that each is a share of."""
    # For an AUC the smaller class: there are so many disjoint pairs, and at an AUC of 1 none is out of order.
    for name, count in of.items():
        if found[name]["value"] == 0.0 and name != "auc":
            found[name] |= {"high": proven_share(0, count), "of": float(count)}
        elif found[name]["value"] == 1.0:
            found[name] |= {"low": 1.0 - proven_share(0, count)}
    return found


def _figures(
    truth: NDArray[np.int64], score: NDArray[np.float64], threshold: float, weights: NDArray[np.float64]
) -> dict[str, float]:
    used = weights > 0
    truth, score, weights = truth[used], score[used], weights[used]
    fake, called = truth == 1, score >= threshold
    tn, fp, fn, tp = (
        float(weights[chosen].sum()) for chosen in (~fake & ~called, ~fake & called, fake & ~called, fake & called)
    )
    recall = _share(tp, tp + fn)
    return {
        "accuracy": _share(tn + tp, tn + fp + fn + tp),
        "balanced_accuracy": (recall + _share(tn, tn + fp)) / 2,
        "precision": _share(tp, tp + fp),
        "recall": recall,
        "f1": _share(2 * tp, 2 * tp + fp + fn),
        **_ranking(truth, score, weights),
        "brier": float(np.average((score - truth) ** 2, weights=weights)),
        "ece": calibration_error(truth, score, weights),
        "tn": tn,
        "fp": fp,
        "fn": fn,
        "tp": tp,
    }


def _ranking(truth: NDArray[np.int64], score: NDArray[np.float64], weights: NDArray[np.float64]) -> dict[str, float]:
    if not 0 < truth.sum() < len(truth):
        return dict.fromkeys(RANKING, float("nan"))
    with sklearn.config_context(assume_finite=True, skip_parameter_validation=True):
        fpr, tpr, _ = roc_curve(truth, score, sample_weight=weights, drop_intermediate=False)
        precision = float(average_precision_score(truth, score, sample_weight=weights))
    return {
        "auc": float(np.trapezoid(tpr, fpr)),
        "average_precision": precision,
        "eer": _equal_error_rate(fpr, tpr),
        "tpr_at_1_fpr": float(tpr[fpr <= 0.01].max()),
        "tpr_at_5_fpr": float(tpr[fpr <= 0.05].max()),
    }


def _equal_error_rate(fpr: NDArray[np.float64], tpr: NDArray[np.float64]) -> float:
    """Return the rate at which false alarms and misses are equal, interpolated between points of the ROC curve."""
    gap = fpr + tpr - 1.0
    after = int(np.argmax(gap >= 0))
    before = max(after - 1, 0)
    rise = gap[after] - gap[before]
    share = -gap[before] / rise if rise else 0.0
    return float(fpr[before] + share * (fpr[after] - fpr[before]))


def _share(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
