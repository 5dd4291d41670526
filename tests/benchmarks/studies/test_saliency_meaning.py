import numpy as np

from benchmarks.studies.saliency_meaning import judge_drops, masked, score_drops


def network(*, honest: bool):
    """Judge by the top left quarter alone; the map shows that quarter, or if not honest all others."""

    def answer(crop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        light = float(crop[:16, :16].mean()) / 32
        maps = np.zeros((2, 4, 4), np.float32)
        maps[:, :2, :2] = 1.0 if honest else -1.0
        return np.array([0.0, light], np.float32), maps

    return answer


def drops(*, honest: bool) -> np.ndarray:
    generator = np.random.default_rng(0)
    crops = []
    for _ in range(20):
        crop = np.zeros((32, 32, 3), np.uint8)
        crop[:16, :16] = generator.integers(150, 250)
        crops.append(crop)
    return np.array([score_drops(network(honest=honest), crop, generator) for crop in crops])


def test_honest_map_means_something():
    meaning = judge_drops(drops(honest=True), 0)
    assert meaning.hottest > 2 * meaning.random > 0
    assert 0 < meaning.low < meaning.hottest - meaning.random < meaning.high


def test_wrong_map_means_nothing():
    assert judge_drops(drops(honest=False), 0).low <= 0


def test_hottest_quarter_gets_the_mean_colour():
    crop = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    heat = np.arange(16.0).reshape(4, 4)
    painted = masked(crop, heat)
    changed = (painted != crop).any(2)
    assert changed.sum() == 16
    assert changed[6:].all()
    assert (painted[7, 7] == crop.mean((0, 1)).astype(np.uint8)).all()
