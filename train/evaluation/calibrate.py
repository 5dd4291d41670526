"""Temperature and thresholds, fitted on pictures that the model was not trained on."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar

from edge_runtime.errors import DataError
from edge_runtime.model.contract import Calibration

TEMPERATURES = (0.05, 20.0)


def fit_calibration(
    logits: ArrayLike, labels: ArrayLike, *, max_fpr: float = 0.01, max_fnr: float = 0.01
) -> Calibration:
    """Fit how logits are read.

    The temperature minimizes the negative log-likelihood (Guo et al. 2017). `high` is set so that of further real
    faces at most `max_fpr` are called fake, `low` so that of further fakes at most `max_fnr` are called real: the
    quantiles are those of split conformal prediction (Vovk et al. 2005), which hold for the next picture, not only for
    these. With fewer than 1 / max_fpr − 1 real faces no error at all is allowed among them.

    Args:
        logits: [N, 2].
        labels: [N], 0 real, 1 fake.
        max_fpr: share of real faces called fake, in (0, 1).
        max_fnr: share of fakes called real, in (0, 1).

    Raises:
        DataError: a class is missing or a logit is no number.
    """
    values, truth = np.asarray(logits, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if not np.isfinite(values).all():
        raise DataError("a logit is no number; leave unreadable pictures out")
    if not 0 < truth.sum() < len(truth):
        raise DataError("thresholds need real and fake faces; one class is missing in the validation split")
    margin = values[:, 1] - values[:, 0]
    temperature = fit_temperature(margin, truth)
    scores = probabilities(margin, temperature)
    balanced = balanced_threshold(scores, truth)
    low, high = _bounds(scores[truth == 0], scores[truth == 1], max_fpr, max_fnr, balanced)
    return Calibration(temperature, low, high, balanced, fitted=True, max_fpr=max_fpr, max_fnr=max_fnr)


def probabilities(margin: NDArray[np.float64], temperature: float = 1.0) -> NDArray[np.float64]:
    """Return scores in [0, 1] for `margin` = logit of fake − logit of real, as `Calibration.score` does for one."""
    return 1.0 / (1.0 + np.exp(-np.clip(margin / temperature, -700.0, 700.0)))


def fit_temperature(margin: NDArray[np.float64], truth: NDArray[np.int64]) -> float:
    """Return the temperature that makes the scores most likely, within TEMPERATURES.

    The targets are Platt's (1999, "Probabilistic Outputs for Support Vector Machines"): (n + 1) / (n + 2) for the n
    fakes and 1 / (n + 2) for the n real faces. With targets of 1 and 0, a few hundred faces that are told apart without
    an error would make every score 0 or 1, a certainty that so few faces can't give.
    """
    fakes, reals = int(truth.sum()), int((1 - truth).sum())
    target = np.where(truth == 1, (fakes + 1) / (fakes + 2), 1 / (reals + 2))

    def loss(log_temperature: float) -> float:
        scaled = margin / math.exp(log_temperature)
        return float((np.logaddexp(0.0, scaled) - target * scaled).mean())

    low, high = (math.log(bound) for bound in TEMPERATURES)
    return float(math.exp(minimize_scalar(loss, bounds=(low, high), method="bounded").x))


def balanced_threshold(scores: NDArray[np.float64], truth: NDArray[np.int64]) -> float:
    """Return the threshold of the highest balanced accuracy, in the middle between two neighbouring scores."""
    edges = np.unique(scores)
    candidates = np.concatenate([[edges[0]], (edges[:-1] + edges[1:]) / 2, [edges[-1]]])
    real, fake = np.sort(scores[truth == 0]), np.sort(scores[truth == 1])
    hits = 1.0 - np.searchsorted(fake, candidates, side="left") / len(fake)
    passes = np.searchsorted(real, candidates, side="left") / len(real)
    best = np.flatnonzero(np.isclose(hits + passes, (hits + passes).max()))
    return float(candidates[best[len(best) // 2]])


def _bounds(
    real: NDArray[np.float64], fake: NDArray[np.float64], max_fpr: float, max_fnr: float, balanced: float
) -> tuple[float, float]:
    high = np.nextafter(_quantile(real, max_fpr), 2.0)
    low = -np.nextafter(_quantile(-fake, max_fnr), 1.0)
    if low >= high:
        # Both promises hold anywhere between them: nothing is left uncertain.
        low = high = min(max(balanced, high), low)
    return float(np.clip(low, 0.0, 1.0)), float(np.clip(high, 0.0, 1.0))


def _quantile(scores: NDArray[np.float64], share: float) -> float:
    """Return the score that at most `share` of further scores exceed."""
    allowed = max(math.floor(share * (len(scores) + 1)) - 1, 0)
    return float(np.sort(scores)[len(scores) - 1 - allowed])
