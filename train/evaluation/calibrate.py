"""Temperature, bias and thresholds, fitted on pictures that the model was not trained on."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit
from scipy.stats import beta

from edge_runtime.errors import DataError
from edge_runtime.model.contract import Calibration, QualityGroup
from train.data.catalog import FaceRecord
from train.data.splits import Groups, group_count

TEMPERATURES = (0.05, 20.0)
"""Bounds of the temperature."""

CONFIDENCE = 0.95
"""Confidence of the error bounds in a calibration."""

VISIBLE_BLOCKS = 1.25
"""From this blockiness on JPEG's blocks show: about quality 80 and less."""

SMALL_FACE = 160.0
"""Faces below this many pixels are a group of their own where there are enough of them."""

MIN_GROUP = 50
"""Faces of each class, copies included, that a group needs for thresholds of its own."""

MIN_SOURCE = 20
"""Faces, copies included, that a source of reals needs to count by itself."""

EDGE = 1e-6
"""Log-odds that thresholds lie beyond the faces they were fitted to, more than rounding moves a score."""


def fit_calibration(
    logits: ArrayLike, labels: ArrayLike, *, groups: Groups = None, max_fpr: float = 0.01, max_fnr: float = 0.01
) -> Calibration:
    """Fit temperature, bias and thresholds.

    `high` is set so that at most `max_fpr` of further real faces are called fake, `low` so that at most `max_fnr` of
    further fakes are called real, see `upper_quantile`. Where the classes are so far apart that one threshold would
    keep both limits, the scores between the two quantiles, which hardly any face had, stay uncertain.

    Args:
        logits: [N, 2].
        labels: [N], 0 real, 1 fake.
        groups: [N], of train.data.splits.group_faces; what is proven counts them instead of faces.
        max_fpr: share of real faces called fake, in (0, 1).
        max_fnr: share of fakes called real, in (0, 1).

    Raises:
        DataError: a class is missing, or a logit is NaN or infinite.
    """
    values, truth = np.asarray(logits, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if not np.isfinite(values).all():
        raise DataError("a logit is NaN or infinite; leave unreadable pictures out")
    if not 0 < truth.sum() < len(truth):
        raise DataError("thresholds need real and fake faces; one class is missing in the validation split")
    temperature, bias = fit_platt(values[:, 1] - values[:, 0], truth)
    fitted = Calibration(temperature=temperature, bias=bias, fitted=True, max_fpr=max_fpr, max_fnr=max_fnr)
    odds = log_odds(values, fitted)
    return with_thresholds(fitted, odds, truth, find_edges(odds, truth, [""] * len(truth), fitted), groups)


@dataclass(frozen=True)
class GradedFaces:
    """Faces to fit thresholds to: logits [N, 2], labels [N], qualities [N, 3] (sharpness, blockiness, size), and the
    source of each [N], empty if unknown.
    """

    logits: NDArray[np.float64]
    labels: NDArray[np.int64]
    qualities: NDArray[np.float64]
    sources: tuple[str, ...]

    @classmethod
    def of(cls, faces: Sequence[FaceRecord], logits: ArrayLike, qualities: NDArray[np.float64]) -> "GradedFaces":
        """Describe faces of a catalog."""
        labels = np.array([face.label for face in faces], dtype=np.int64)
        return cls(np.asarray(logits, dtype=np.float64), labels, qualities, tuple(face.source for face in faces))

    def __add__(self, other: "GradedFaces") -> "GradedFaces":
        return GradedFaces(
            logits=np.concatenate([self.logits, other.logits]),
            labels=np.concatenate([self.labels, other.labels]),
            qualities=np.concatenate([self.qualities, other.qualities]),
            sources=self.sources + other.sources,
        )


def fit_by_quality(
    clean: GradedFaces, copies: GradedFaces, *, groups: Groups = None, max_fpr: float = 0.01, max_fnr: float = 0.01
) -> Calibration:
    """Fit a calibration whose thresholds also hold for damaged pictures and, as far as possible, for other sources.

    Temperature and bias are those of the clean faces. Thresholds are fitted to clean faces and damaged copies together,
    in groups of similar sharpness and blockiness (Mondrian conformal prediction, Vovk et al. 2005). `high` is that of
    the strictest source of reals. A group that is too small keeps the thresholds of all faces.

    Measured on a network of one source, on further faces of that source: reals called fake after recapture 1.5 %
    instead of 15.5 %, none at JPEG 50 and half size, coverage of clean faces 0.87 instead of 0.99; detail in place of
    sharpness left a coverage of 0.36. On a weak network of many sources, 70 faces of a real source that it had not
    seen: 2.9 % called fake if clean and at most 1.4 % after eight kinds of damage (7.1 % and 2.9 % with thresholds from
    clean faces, 4.3 % and 2.9 % with groups but without sources), for 0.79 of the coverage. Doing the same for
    generators halved coverage. The grouping was chosen among nine on these very faces, so expect somewhat less.

    `groups` are those of the clean faces. Raises as `fit_calibration` does.
    """
    plain = fit_calibration(clean.logits, clean.labels, max_fpr=max_fpr, max_fnr=max_fnr)
    faces = clean + copies
    odds = log_odds(faces.logits, plain)
    pooled = find_edges(odds, faces.labels, faces.sources, plain)
    left, qualities = np.ones(len(odds), bool), []
    for limits in quality_limits(faces):
        inside = left & np.all([faces.qualities[:, i] < limit for i, limit in enumerate(limits) if limit], axis=0)
        left &= ~inside
        edges = pooled
        if is_enough(faces.labels[inside]):
            sources = [source for source, member in zip(faces.sources, inside, strict=True) if member]
            edges = find_edges(odds[inside], faces.labels[inside], sources, plain)
        scale = (pooled[1] - pooled[0]) / max(edges[1] - edges[0], 1e-3)
        qualities.append(QualityGroup(*limits, scale=scale, shift=pooled[1] - scale * edges[1]))
    fitted = replace(plain, groups=tuple(qualities))
    return with_thresholds(fitted, log_odds(clean.logits, fitted, clean.qualities), clean.labels, pooled, groups)


def refit(
    like: Calibration,
    logits: ArrayLike,
    labels: ArrayLike,
    qualities: NDArray[np.float64] | None,
    *,
    groups: Groups = None,
    **allowed: float,
) -> Calibration:
    """Fit a calibration for another precision of the network that `like` was fitted to, with its groups by quality.

    `logits` are of clean faces only, so that thresholds never become narrower than those of `like`.
    """
    plain = fit_calibration(logits, labels, groups=groups, **allowed)
    if not like.groups or qualities is None:
        return plain
    fitted, truth = replace(plain, groups=like.groups), np.asarray(labels, dtype=np.int64)
    odds = log_odds(logits, fitted, qualities)
    low, high = find_edges(odds, truth, [""] * len(truth), fitted)
    edges = (min(low, float(logit(like.low))), max(high, float(logit(like.high))))
    return with_thresholds(fitted, odds, truth, edges, groups)


def quality_limits(faces: GradedFaces) -> list[tuple[float | None, float | None, float | None]]:
    """Return the limits of each group: thirds by sharpness, with and without visible JPEG blocks; in their order."""
    thirds = (float(limit) for limit in np.quantile(faces.qualities[:, 0], (1 / 3, 2 / 3)))
    sizes: tuple[float | None, ...] = (None,)
    small = faces.qualities[:, 2] < SMALL_FACE
    if is_enough(faces.labels[small]) and is_enough(faces.labels[~small]):
        sizes = (SMALL_FACE, None)
    return list(product((*thirds, None), (VISIBLE_BLOCKS, None), sizes))


def is_enough(labels: NDArray[np.int64]) -> bool:
    """Return whether a group has enough faces of each class for thresholds of its own."""
    return min(int((labels == 0).sum()), int((labels == 1).sum())) >= MIN_GROUP


def log_odds(
    logits: ArrayLike, calibration: Calibration, qualities: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Return the log-odds of fake [N] for `logits` [N, 2], by group if `qualities` [N, 3] are given."""
    values = np.asarray(logits, dtype=np.float64)
    margins = values[:, 1] - values[:, 0]
    if qualities is not None:
        margins = np.array([calibration.adjusted(m, q) for m, q in zip(margins, qualities, strict=True)])
    return margins / calibration.temperature + calibration.bias


def find_edges(
    odds: NDArray[np.float64], truth: NDArray[np.int64], sources: Sequence[str], calibration: Calibration
) -> tuple[float, float]:
    """Return the log-odds between which a face is uncertain; the limit for reals holds for each of their sources."""
    reals, names = odds[truth == 0], np.array(sources)[truth == 0]
    parts = [reals, *(reals[names == name] for name in set(names) if np.count_nonzero(names == name) >= MIN_SOURCE)]
    upper = max(upper_quantile(part, calibration.max_fpr) for part in parts)
    lower = -upper_quantile(-odds[truth == 1], calibration.max_fnr)
    return min(lower, upper), max(lower, upper)


def with_thresholds(
    calibration: Calibration,
    odds: NDArray[np.float64],
    truth: NDArray[np.int64],
    edges: tuple[float, float],
    groups: Groups = None,
) -> Calibration:
    """Return `calibration` with the thresholds just beyond `edges`, and what faces with `odds` [N] prove about them.

    A group counts once, as an error if it holds one.
    """
    low, high = float(np.nextafter(expit(edges[0] - EDGE), 0.0)), float(np.nextafter(expit(edges[1] + EDGE), 1.0))
    scores = expit(odds)
    reals, fakes = group_count(groups, truth == 0), group_count(groups, truth == 1)
    return replace(
        calibration,
        low=low,
        high=high,
        balanced=balanced_threshold(scores, truth),
        reals=reals,
        fakes=fakes,
        fpr_bound=proven_share(group_count(groups, (scores >= high) & (truth == 0)), reals),
        fnr_bound=proven_share(group_count(groups, (scores <= low) & (truth == 1)), fakes),
    )


def fit_platt(margin: NDArray[np.float64], truth: NDArray[np.int64]) -> tuple[float, float]:
    """Return temperature, within TEMPERATURES, and bias of the lowest negative log-likelihood.

    Args:
        margin: [N], logit of fake − logit of real.
        truth: [N], 0 real, 1 fake.

    Targets are Platt's (1999, "Probabilistic Outputs for Support Vector Machines"): (n + 1) / (n + 2) for the n fakes
    and 1 / (n + 2) for the n real faces. With targets of 1 and 0, a few hundred faces without an error would push every
    score to 0 or 1, a certainty that so few faces can't support. Both classes weigh the same, so that 0.5 does not
    depend on how many of each there are.
    """
    fakes, reals = int(truth.sum()), int((1 - truth).sum())
    target = np.where(truth == 1, (fakes + 1) / (fakes + 2), 1 / (reals + 2))
    weight = np.where(truth == 1, 0.5 / fakes, 0.5 / reals)

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        slope, bias = parameters
        odds = slope * margin + bias
        error = weight * (expit(odds) - target)
        return float((weight * (np.logaddexp(0.0, odds) - target * odds)).sum()), np.array(
            [error @ margin, error.sum()]
        )

    # The loss is convex in the slope and the bias, so every start ends in the same minimum.
    bounds = [(1 / TEMPERATURES[1], 1 / TEMPERATURES[0]), (None, None)]
    slope, bias = minimize(loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=bounds, tol=1e-10).x
    return float(1 / slope), float(bias)


def balanced_threshold(scores: NDArray[np.float64], truth: NDArray[np.int64]) -> float:
    """Return the threshold of the highest balanced accuracy, halfway between two neighbouring scores."""
    edges = np.unique(scores)
    candidates = np.concatenate([[edges[0]], (edges[:-1] + edges[1:]) / 2, [edges[-1]]])
    real, fake = np.sort(scores[truth == 0]), np.sort(scores[truth == 1])
    recall = 1.0 - np.searchsorted(fake, candidates, side="left") / len(fake)
    specificity = np.searchsorted(real, candidates, side="left") / len(real)
    sums = recall + specificity
    best = np.flatnonzero(np.isclose(sums, sums.max()))
    return float(candidates[best[len(best) // 2]])


def upper_quantile(values: NDArray[np.float64], share: float) -> float:
    """Return a bound that at most `share` of further values exceed, if they are drawn like `values` [N].

    It is the quantile of split conformal prediction (Vovk et al. 2005), which holds for the next value, not only for
    these. It needs 1 / share − 1 values. With fewer, the largest, which one in N + 1 exceeds, is continued with an
    exponential tail, whose scale is the mean excess of the upper quarter.
    """
    ordered = np.sort(values)
    allowed = math.floor(share * (len(ordered) + 1)) - 1
    if allowed >= 0:
        return float(ordered[len(ordered) - 1 - allowed])
    upper = ordered[-max(len(ordered) // 4, 1) :]
    scale = float((upper - ordered[-len(upper) - 1]).mean()) if len(ordered) > 1 else 1.0
    return float(ordered[-1] - scale * math.log(share * (len(ordered) + 1)))


def proven_share(errors: int, faces: int) -> float:
    """Return the share of errors that `errors` among `faces` don't exceed with 95 % confidence (Clopper, Pearson 1934).

    Without an error it is about 3 / faces, the rule of three. Of faces that depend on each other, count their groups.
    """
    return float(beta.ppf(CONFIDENCE, errors + 1, faces - errors)) if errors < faces else 1.0


def bounds_text(calibration: Mapping[str, Any]) -> str:
    """Return what the number of faces proves about the thresholds of a `Calibration`, given by field."""
    if not calibration["reals"]:
        return "Nothing is proven about these thresholds: they were not fitted, or by an older version."
    return (
        "Proven with 95 % confidence, for faces like those that the thresholds were fitted to: at most "
        f"{calibration['fpr_bound']:.1%} of reals are called fake (from {calibration['reals']} faces), and at most "
        f"{calibration['fnr_bound']:.1%} of fakes real (from {calibration['fakes']}). A person or video counts once."
    )
