"""Temperature and thresholds, fitted on pictures that the model was not trained on."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar

from edge_runtime.errors import DataError
from edge_runtime.judging.decide import fake_scores
from edge_runtime.model.contract import Calibration

TEMPERATURES = (0.05, 20.0)
"""Bounds of the temperature."""


def fit_calibration(
    logits: ArrayLike, labels: ArrayLike, *, max_fpr: float = 0.01, max_fnr: float = 0.01
) -> Calibration:
    """Fit temperature and thresholds.

    The temperature minimizes the negative log-likelihood (Guo et al. 2017). `high` is set so that at most `max_fpr` of
    further real faces are called fake, `low` so that at most `max_fnr` of further fakes are called real. The quantiles
    are those of split conformal prediction (Vovk et al. 2005): they hold for the next picture, not only for these. With
    fewer than 1 / max_fpr − 1 real faces, none of these may score above `high`.

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
    temperature = fit_temperature(values[:, 1] - values[:, 0], truth)
    scores = fake_scores(values, temperature)
    balanced = balanced_threshold(scores, truth)
    high = np.nextafter(_quantile(scores[truth == 0], max_fpr), 2.0)
    low = -np.nextafter(_quantile(-scores[truth == 1], max_fnr), 1.0)
    if low >= high:
        # The classes are so far apart that one threshold keeps both limits: nothing is left uncertain.
        low = high = min(max(balanced, high), low)
    return Calibration(
        temperature=temperature,
        low=float(np.clip(low, 0.0, 1.0)),
        high=float(np.clip(high, 0.0, 1.0)),
        balanced=balanced,
        fitted=True,
        max_fpr=max_fpr,
        max_fnr=max_fnr,
    )


def fit_temperature(margin: NDArray[np.float64], truth: NDArray[np.int64]) -> float:
    """Return the temperature of the lowest negative log-likelihood, within TEMPERATURES.

    Args:
        margin: [N], logit of fake − logit of real.
        truth: [N], 0 real, 1 fake.

    The targets are Platt's (1999, "Probabilistic Outputs for Support Vector Machines"): (n + 1) / (n + 2) for the n
    fakes and 1 / (n + 2) for the n real faces. With targets of 1 and 0, a few hundred faces without an error would
    push every score to 0 or 1, a certainty that so few faces can't support.
    """
    fakes, reals = int(truth.sum()), int((1 - truth).sum())
    target = np.where(truth == 1, (fakes + 1) / (fakes + 2), 1 / (reals + 2))

    def loss(log_temperature: float) -> float:
        scaled = margin / math.exp(log_temperature)
        return float((np.logaddexp(0.0, scaled) - target * scaled).mean())

    low, high = (math.log(bound) for bound in TEMPERATURES)
    return float(math.exp(minimize_scalar(loss, bounds=(low, high), method="bounded").x))


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


def _quantile(scores: NDArray[np.float64], share: float) -> float:
    """Return the score that at most `share` of further scores exceed."""
    allowed = max(math.floor(share * (len(scores) + 1)) - 1, 0)
    return float(np.sort(scores)[len(scores) - 1 - allowed])
