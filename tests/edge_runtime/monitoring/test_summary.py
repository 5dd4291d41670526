"""Summaries: exact moments, a compact file, and sums that add up."""

from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from scipy.linalg import sqrtm

from edge_runtime.judging.results import FaceTraits
from edge_runtime.monitoring.distance import SIZES, drawn_limits, frechet, limit_at
from edge_runtime.monitoring.store import KEPT_BYTES, packed
from edge_runtime.monitoring.summary import BINS, KINDS, TRAITS, Summary


def filled(count: int, width: int = 5, seed: int = 0) -> tuple[Summary, np.ndarray]:
    """Summarize `count` faces in each cell; return also the positions of bright real ones."""
    random, summary = np.random.default_rng(seed), Summary(width)
    mixing = random.normal(size=(width, width))
    kept = []
    for light in (30.0, 200.0):
        for kind in KINDS:
            for place in (random.normal(size=(count, width)) @ mixing + 7).astype(np.float32):
                summary.add(FaceTraits(place, 100.0, 0.5, 1.2, light), kind, random.uniform())
                if light > 100 and kind == "real":
                    kept.append(place)
    return summary, np.array(kept, float)


def test_moments_are_those_of_the_faces() -> None:
    summary, places = filled(60)
    mean, covariance = summary.moments((1, 0))
    np.testing.assert_allclose(mean, places.mean(0), rtol=1e-6)
    np.testing.assert_allclose(covariance, np.cov(places, rowvar=False))
    assert summary.counts.tolist() == [[60] * 4] * 2
    assert summary.histograms.sum(axis=(0, 1, 3)).tolist() == [480] * len(TRAITS)
    size_row = summary.histograms[0, 0, list(TRAITS).index("size")]
    assert TRAITS["size"][size_row.argmax()] <= 100 < TRAITS["size"][size_row.argmax() + 1]


@pytest.mark.parametrize("count", [1, 2, 300])
def test_stored_summaries_come_back(count: int) -> None:
    summary, _ = filled(count)
    back = Summary.from_arrays(summary.to_arrays())
    assert back.counts.tolist() == summary.counts.tolist()
    assert back.histograms.tolist() == summary.histograms.tolist()
    np.testing.assert_allclose(back.sums, summary.sums, rtol=1e-5)
    np.testing.assert_allclose(back.outers, summary.outers, rtol=2e-3, atol=0.05)


def test_two_blocks_add_up_to_one() -> None:
    (first, one), (second, two) = filled(40, seed=1), filled(25, seed=2)
    first += second
    mean, covariance = first.moments((1, 0))
    both = np.concatenate([one, two])
    np.testing.assert_allclose(mean, both.mean(0))
    np.testing.assert_allclose(covariance, np.cov(both, rowvar=False))


def test_values_beyond_a_histogram_count_in_its_last_bin() -> None:
    summary = Summary(1)
    summary.add(FaceTraits(np.zeros(1, np.float32), 5000.0, 2.0, 0.1, 255.0), "real", 1.0)
    filled_bins = summary.histograms[1, 0].argmax(axis=1).tolist()
    assert filled_bins == [BINS - 1, BINS - 1, BINS - 1, BINS - 1, 0]


def test_a_year_of_full_hours_fits() -> None:
    summary, _ = filled(500, width=33)
    hour = len(packed([summary]))
    hours = int(
        (datetime(2029, 1, 1, tzinfo=timezone.utc) - datetime(2028, 1, 1, tzinfo=timezone.utc)) / timedelta(hours=1)
    )
    assert hours == 8784
    assert hour <= 50_000
    assert hour * hours <= KEPT_BYTES


def test_the_distance_is_frechets() -> None:
    random = np.random.default_rng(3)
    one, two = (np.cov(random.normal(size=(50, 4)) @ random.normal(size=(4, 4)), rowvar=False) for _ in range(2))
    first, second = random.normal(size=(2, 4))
    expected = ((first - second) ** 2).sum() + np.trace(one + two - 2 * np.real(sqrtm(one @ two)))
    assert float(frechet(first, one, second, two)) == pytest.approx(expected)
    assert float(frechet(first, one, first, one)) == pytest.approx(0, abs=1e-9)


def test_chance_stays_below_the_drawn_limit() -> None:
    random = np.random.default_rng(4)
    mixing = random.normal(size=(6, 6))
    known = random.normal(size=(500, 6)) @ mixing
    mean, covariance = known.mean(0), np.cov(known, rowvar=False)
    limits = drawn_limits(len(known), mean, covariance)
    assert (np.diff(limits) <= 0).all()
    for faces in (30, 60, 400):
        drawn = [random.normal(size=(faces, 6)) @ mixing for _ in range(200)]
        found = [float(frechet(mean, covariance, part.mean(0), np.cov(part, rowvar=False))) for part in drawn]
        assert np.mean(np.array(found) > limit_at(faces, limits)) <= 0.05
        shifted = drawn[0] + 3 * mixing.std()
        assert float(frechet(mean, covariance, shifted.mean(0), covariance)) > 2 * limit_at(faces, limits)
    assert limit_at(SIZES[1], limits) == pytest.approx(limits[1])
