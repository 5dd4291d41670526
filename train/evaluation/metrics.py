"""Figures of a detector, each with its bootstrap interval. Fake is the positive class."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import sklearn
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from edge_runtime.errors import DataError
from train.data.catalog import SEED
from train.data.splits import Groups, group_count
from train.evaluation.calibrate import proven_share

Figure = dict[str, float]
"""`value`, and the bounds `low` and `high` of its interval; for a share of 0 also `of`, how many faces it is of.

The bootstrap of a share of 0 or 1 is always the same, so its other bound is that of Clopper and Pearson for as many
groups as there are. With fewer than FEW_GROUPS of a class the bounds are unknown: 0 and 1, and `groups` is how many.
"""

Measured = Callable[[NDArray[np.float64]], dict[str, float]]
"""From the faces' weights [N] to figures."""

Masks = tuple[NDArray[np.bool_], ...]

INTERVAL = (2.5, 97.5)
"""Percentiles of the bootstrap distribution: an interval of 95 %."""

FEW_GROUPS = 5
"""With fewer groups of a class, resamples hardly differ, and would make an interval of almost no width."""

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
    fake, both, called = (truth == 1,), (truth == 0, truth == 1), score >= threshold
    parts: dict[str, Masks] = {"accuracy": (truth >= 0,), "precision": (called,), "f1": (called, *fake)}
    parts |= dict.fromkeys(("recall", "tpr_at_1_fpr", "tpr_at_5_fpr"), fake)
    parts |= dict.fromkeys(("auc", "average_precision", "balanced_accuracy", "eer"), both)
    parts |= dict.fromkeys(("brier", "ece"), ())
    return _bounded(lambda weights: _figures(truth, score, threshold, weights), parts, truth, groups, bootstrap, seed)


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
    faces = {"fpr": truth == 0, "fnr": truth == 1, "coverage": truth >= 0}
    faces["error"] = faces["accuracy"] = (score >= high) | (score <= low)
    parts = {name: (chosen,) for name, chosen in faces.items()}
    return _bounded(decided_figures(truth, score, low, high), parts, truth, groups, bootstrap, seed)


def decided_figures(truth: NDArray[np.int64], score: NDArray[np.float64], low: float, high: float) -> Measured:
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
    area, parts = pairwise_auc(truth, score), {"auc": (truth == 0, truth == 1)}
    return _bounded(lambda weights: {"auc": area(weights)}, parts, truth, groups, bootstrap, seed)["auc"]


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

    def measured(score: NDArray[np.float64], edge: float) -> Callable[[NDArray[np.float64]], float]:
        return pairwise_auc(truth, score) if figure == "auc" else lambda w: _figures(truth, score, edge, w)[figure]

    old, new = measured(before, low), measured(after, high)
    return bootstrapped(lambda w: {figure: new(w) - old(w)}, len(truth), groups, bootstrap, seed)[figure]


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
    figures: Measured,
    count: int,
    groups: Groups,
    bootstrap: int,
    seed: int = SEED,
    interval: tuple[float, float] = INTERVAL,
) -> dict[str, Figure]:
    """Return `figures` of equal weights [N], with percentiles `interval` of `bootstrap` resamples of whole groups."""
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


def _bounded(
    figures: Measured, parts: Mapping[str, Masks], truth: NDArray[np.int64], groups: Groups, bootstrap: int, seed: int
) -> dict[str, Figure]:
    """Return the `bootstrapped` figures, those of `parts` (masks of faces) bounded where all resamples are alike."""
    found = bootstrapped(figures, len(truth), groups, bootstrap, seed)
    fewest = min(group_count(groups, truth == label) for label in set(truth.tolist()))
    for name, of in parts.items():
        value, low, high = found[name].values()
        if of and (value in (0.0, 1.0) or (bootstrap and fewest >= FEW_GROUPS and low == high)):
            # The widest bound of its parts. For an AUC that is the smaller class's: there are so many disjoint pairs.
            margin = max(proven_share(0, group_count(groups, faces)) for faces in of if faces.any())
            found[name] |= {"low": max(0.0, min(low, value - margin)), "high": min(1.0, max(high, value + margin))}
            if value == 0.0 and len(of) == 1:
                found[name]["of"] = float(of[0].sum())
        elif bootstrap and fewest < FEW_GROUPS and np.isfinite(value):
            found[name] |= {"low": 0.0, "high": 1.0, "groups": float(fewest)}
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
    # The rate at which false alarms and misses are equal, interpolated between points of the ROC curve.
    gap = fpr + tpr - 1.0
    after = int(np.argmax(gap >= 0))
    before = max(after - 1, 0)
    rise = gap[after] - gap[before]
    share = -gap[before] / rise if rise else 0.0
    return {
        "auc": float(np.trapezoid(tpr, fpr)),
        "average_precision": precision,
        "eer": float(fpr[before] + share * (fpr[after] - fpr[before])),
        "tpr_at_1_fpr": float(tpr[fpr <= 0.01].max()),
        "tpr_at_5_fpr": float(tpr[fpr <= 0.05].max()),
    }


def _share(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
