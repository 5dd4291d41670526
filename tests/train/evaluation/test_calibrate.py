from dataclasses import asdict

import numpy as np
import pytest

from edge_runtime.errors import DataError
from edge_runtime.judging.decide import fake_scores
from edge_runtime.model.contract import Verdict
from train.evaluation.calibrate import bounds_text, fit_calibration, proven_share, upper_quantile


def faces(count: int, *, spread: float, sharpness: float = 1.0, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Logits [count, 2] and labels drawn so that the true temperature is `sharpness`."""
    rng = np.random.default_rng(seed)
    margin = rng.normal(0.0, spread, count)
    labels = (rng.random(count) < 1 / (1 + np.exp(-margin))).astype(int)
    return np.stack([np.zeros(count), margin * sharpness], axis=1), labels


def separated(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits of `count` real and `count` fake faces without an error, and their labels."""
    labels = np.repeat([0, 1], count)
    margin = np.where(labels == 1, 8.0, -8.0) + np.linspace(-1, 1, 2 * count)
    return np.stack([-margin / 2, margin / 2], axis=1), labels


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 4.0])
def test_the_temperature_corrects_overconfidence(sharpness: float) -> None:
    logits, labels = faces(20_000, spread=3.0, sharpness=sharpness)
    assert fit_calibration(logits, labels).temperature == pytest.approx(sharpness, rel=0.06)


def test_further_faces_keep_the_error_limits() -> None:
    logits, labels = faces(4000, spread=4.0)
    calibration = fit_calibration(logits, labels, max_fpr=0.02, max_fnr=0.05)
    further, truth = faces(50_000, spread=4.0, seed=4)
    verdicts = np.array([calibration.verdict(calibration.score(real_fake[1])).value for real_fake in further])
    assert (verdicts[truth == 0] == Verdict.FAKE.value).mean() == pytest.approx(0.02, abs=0.008)
    assert (verdicts[truth == 1] == Verdict.REAL.value).mean() == pytest.approx(0.05, abs=0.012)
    assert (verdicts == Verdict.UNCERTAIN.value).any()


def test_the_bias_makes_half_a_score_mean_even_odds() -> None:
    logits, labels = faces(20_000, spread=3.0)
    shifted = logits + np.array([0.0, 4.0])
    found = fit_calibration(shifted, labels)
    assert found.bias == pytest.approx(-4.0, abs=0.15)
    near = np.abs(fake_scores(shifted, found) - 0.5) < 0.05
    assert labels[near].mean() == pytest.approx(0.5, abs=0.05)
    fewer_reals = (labels == 1) | (np.arange(len(labels)) % 10 == 0)
    assert fit_calibration(shifted[fewer_reals], labels[fewer_reals]).bias == pytest.approx(found.bias, abs=0.3)


def test_few_faces_do_not_give_certainty() -> None:
    logits, labels = separated(50)
    calibration = fit_calibration(logits, labels)
    scores = fake_scores(logits, calibration)
    assert 0.005 < scores.min() < 0.05
    assert 0.95 < scores.max() < 0.995
    assert calibration.balanced == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("count", [30, 70, 500])
def test_a_band_stays_between_perfectly_separated_classes(count: int) -> None:
    logits, labels = separated(count)
    found = fit_calibration(logits, labels)
    assert found.high - found.low > 0.5
    assert found.verdict(0.5) is Verdict.UNCERTAIN
    assert found.fpr_bound == pytest.approx(1 - 0.05 ** (1 / count))
    assert f"{found.fpr_bound:.1%} of reals are called fake (from {count} faces)" in bounds_text(asdict(found))


def test_too_few_faces_for_the_promise_move_the_threshold_outwards() -> None:
    values = np.random.default_rng(1).exponential(size=(2000, 30))
    exceeded = np.exp(-np.array([upper_quantile(row, 0.01) for row in values])).mean()
    largest = np.exp(-values.max(axis=1)).mean()
    assert largest == pytest.approx(1 / 31, rel=0.1)
    assert exceeded == pytest.approx(0.0135, abs=0.004)


def test_proven_shares_are_those_of_clopper_and_pearson() -> None:
    assert proven_share(0, 70) == pytest.approx(0.0419, abs=1e-4)
    assert proven_share(2, 100) == pytest.approx(0.0616, abs=1e-4)
    assert proven_share(5, 5) == 1.0


def test_a_missing_class_or_nan_is_refused() -> None:
    with pytest.raises(DataError, match="one class is missing"):
        fit_calibration(np.zeros((4, 2)), [1, 1, 1, 1])
    with pytest.raises(DataError, match="NaN"):
        fit_calibration([[0, np.nan], [0, 1]], [0, 1])
