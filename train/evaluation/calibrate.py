"""Temperature, bias and thresholds, fitted on pictures that the model was not trained on."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import beta

from edge_runtime.errors import DataError
from edge_runtime.model.contract import Calibration

TEMPERATURES = (0.05, 20.0)
"""Bounds of the temperature."""

CONFIDENCE = 0.95
"""Confidence of the error bounds in a calibration."""


def fit_calibration(
    logits: ArrayLike, labels: ArrayLike, *, max_fpr: float = 0.01, max_fnr: float = 0.01
) -> Calibration:
    """Fit temperature, bias and thresholds.

    `high` is set so that at most `max_fpr` of further real faces are called fake, `low` so that at most `max_fnr` of
    further fakes are called real, see `upper_quantile`. Where the classes are so far apart that one threshold would
    keep both limits, the scores between the two quantiles, which hardly any face had, stay uncertain.

    Args:
        logits: [N, 2].
        labels: [N], 0 real, 1 fake.
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
    odds = (values[:, 1] - values[:, 0]) / temperature + bias
    edges = (upper_quantile(odds[truth == 0], max_fpr), -upper_quantile(-odds[truth == 1], max_fnr))
    low, high = (float(expit(edge)) for edge in (min(edges), max(edges)))
    low, high = float(np.nextafter(low, 0.0)), float(np.nextafter(high, 1.0))
    scores = expit(odds)
    wrong = ((scores >= high) & (truth == 0)).sum(), ((scores <= low) & (truth == 1)).sum()
    reals, fakes = int((truth == 0).sum()), int(truth.sum())
    return Calibration(
        temperature=temperature,
        bias=bias,
        low=low,
        high=high,
        balanced=balanced_threshold(scores, truth),
        fitted=True,
        max_fpr=max_fpr,
        max_fnr=max_fnr,
        reals=reals,
        fakes=fakes,
        fpr_bound=proven_share(int(wrong[0]), reals),
        fnr_bound=proven_share(int(wrong[1]), fakes),
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

    Without an error it is about 3 / faces, the rule of three.
    """
    return float(beta.ppf(CONFIDENCE, errors + 1, faces - errors)) if errors < faces else 1.0


def bounds_text(calibration: Mapping[str, Any]) -> str:
    """Return what the number of faces proves about the thresholds of a `Calibration`, given by field."""
    if not calibration["reals"]:
        return "Nothing is proven about these thresholds: they were not fitted, or by an older version."
    return (
        "Proven with 95 % confidence, for faces like those that the thresholds were fitted to: at most "
        f"{calibration['fpr_bound']:.1%} of reals are called fake (from {calibration['reals']} faces), and at most "
        f"{calibration['fnr_bound']:.1%} of fakes real (from {calibration['fakes']})."
    )
