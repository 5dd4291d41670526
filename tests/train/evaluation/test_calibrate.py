import math
from dataclasses import asdict, replace

import numpy as np
import pytest
from scipy.special import expit

from edge_runtime.errors import DataError
from edge_runtime.judging.decide import fake_scores
from edge_runtime.model.contract import Calibration, Verdict
from train.evaluation.calibrate import (
    GradedFaces,
    bounds_text,
    fit_by_quality,
    fit_calibration,
    log_odds,
    proven_share,
    refit,
    upper_quantile,
)


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


def test_what_is_proven_holds_for_further_people() -> None:
    """Ten people of each class in 50 frames each, whose frames are alike; the truth is a thousand further people."""
    rng = np.random.default_rng(11)
    labels, people = np.repeat([0, 1], 500), [str(index // 50) for index in range(1000)]

    def margins(count: int, each: int) -> np.ndarray:
        return np.repeat(rng.normal(-1, 1, count), each) + rng.normal(0, 0.3, count * each)

    exceeded = {"people": 0, "frames": 0}
    for _ in range(40):
        margin = np.concatenate([margins(10, 50), -margins(10, 50)])
        logits, further = np.stack([-margin / 2, margin / 2], axis=1), margins(1000, 5)
        for name, groups in (("people", people), ("frames", None)):
            found = fit_calibration(logits, labels, groups=groups)
            wrong = np.mean(fake_scores(np.stack([-further / 2, further / 2], axis=1), found) >= found.high)
            exceeded[name] += wrong > found.fpr_bound
    assert exceeded["people"] <= 4
    assert exceeded["frames"] >= 10
    assert found.reals == 500
    assert fit_calibration(logits, labels, groups=people).reals == 10
    given = GradedFaces(logits, labels, np.full((1000, 3), 200.0), ("",) * 1000)
    fitted = fit_by_quality(given, given, groups=people)
    assert (fitted.reals, fitted.fakes) == (10, 10)
    again = refit(fitted, logits, labels, given.qualities, groups=people)
    assert (again.reals, again.fpr_bound) == (10, fitted.fpr_bound)


def test_a_missing_class_or_nan_is_refused() -> None:
    with pytest.raises(DataError, match="one class is missing"):
        fit_calibration(np.zeros((4, 2)), [1, 1, 1, 1])
    with pytest.raises(DataError, match="NaN"):
        fit_calibration([[0, np.nan], [0, 1]], [0, 1])


def graded(count: int, *, origins: int = 1, seed: int = 5) -> GradedFaces:
    """Sharp faces that are told apart well, and soft ones whose reals look more like fakes, source by source."""
    random = np.random.default_rng(seed)
    labels, soft, origin = np.arange(count) % 2, random.random(count) < 1 / 3, random.integers(0, origins, count)
    margin = np.where(labels == 1, 6.0, -6.0) + np.where(soft & (labels == 0), 8.0, 0.0) + 4.0 * origin * (labels == 0)
    logits = np.stack([np.zeros(count), margin + random.normal(0, 1.5, count)], axis=1)
    qualities = np.stack([np.where(soft, 2.0, 8.0) + random.random(count), np.ones(count), np.full(count, 256.0)], 1)
    return GradedFaces(logits, labels, qualities, tuple(map(str, origin)))


def test_each_quality_keeps_the_error_limits() -> None:
    found = fit_by_quality(graded(4000), graded(4000, seed=6), max_fpr=0.02)
    further = graded(40_000, seed=7)
    odds, soft = log_odds(further.logits, found, further.qualities), further.qualities[:, 0] < 5
    high, low = (math.log(edge / (1 - edge)) for edge in (found.high, found.low))
    assert (odds >= high)[soft & (further.labels == 0)].mean() == pytest.approx(0.02, abs=0.01)
    assert (odds >= high)[~soft & (further.labels == 0)].mean() <= 0.02
    assert ((odds > low) & (odds < high))[~soft].mean() < 0.02
    assert ((odds > low) & (odds < high))[soft].mean() > 0.1
    assert found.fpr_bound < 0.03


def test_the_strictest_source_sets_the_threshold() -> None:
    faces = graded(3000, origins=3)
    mixed = replace(faces, sources=("",) * len(faces.labels))
    rates = []
    for given in (faces, mixed):
        found = fit_by_quality(given, given)
        strictest = (faces.labels == 0) & (np.array(faces.sources) == "2")
        scores = expit(log_odds(faces.logits, found, faces.qualities))
        rates.append((scores >= found.high)[strictest].mean())
    assert rates[0] <= 0.01 < rates[1]


def test_a_small_group_keeps_the_thresholds_of_all() -> None:
    few = graded(60)
    found = fit_by_quality(few, few)
    assert all(group.scale == pytest.approx(1) and abs(group.shift) < 1e-9 for group in found.groups)


def test_another_precision_keeps_groups_and_is_never_less_strict() -> None:
    faces = graded(2000)
    first = fit_by_quality(faces, graded(2000, seed=6))
    halved = refit(first, faces.logits / 2, faces.labels, faces.qualities)
    assert halved.groups == first.groups
    assert halved.temperature == pytest.approx(first.temperature / 2, rel=0.01)
    assert halved.low <= first.low + 1e-6
    assert halved.high >= first.high - 1e-6
    assert refit(Calibration(), faces.logits, faces.labels, faces.qualities).groups == ()
