import numpy as np
import pytest

from edge_runtime.errors import DataError
from edge_runtime.judging.decide import fake_scores
from edge_runtime.model.contract import Verdict
from train.evaluation.calibrate import fit_calibration


def faces(count: int, *, spread: float, sharpness: float = 1.0, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Logits [count, 2] and labels drawn so that the true temperature is `sharpness`."""
    rng = np.random.default_rng(seed)
    margin = rng.normal(0.0, spread, count)
    labels = (rng.random(count) < 1 / (1 + np.exp(-margin))).astype(int)
    return np.stack([np.zeros(count), margin * sharpness], axis=1), labels


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


def test_few_faces_do_not_give_certainty() -> None:
    labels = np.repeat([0, 1], 50)
    margin = np.where(labels == 1, 8.0, -8.0) + np.linspace(-1, 1, 100)
    logits = np.stack([-margin / 2, margin / 2], axis=1)
    calibration = fit_calibration(logits, labels)
    scores = fake_scores(logits, calibration.temperature)
    assert 0.005 < scores.min() < 0.05
    assert 0.95 < scores.max() < 0.995
    assert calibration.balanced == pytest.approx(0.5, abs=0.05)
    assert 0.4 < calibration.low <= calibration.balanced <= calibration.high < 0.6


def test_a_missing_class_or_nan_is_refused() -> None:
    with pytest.raises(DataError, match="one class is missing"):
        fit_calibration(np.zeros((4, 2)), [1, 1, 1, 1])
    with pytest.raises(DataError, match="NaN"):
        fit_calibration([[0, np.nan], [0, 1]], [0, 1])
