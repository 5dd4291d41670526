import numpy as np
import pytest

from train.data import degrade


def detail(picture):
    """How much changes from one pixel to the next, in grey levels."""
    return float(np.abs(np.diff(np.asarray(picture.convert("L"), dtype=float), axis=1)).mean())


@pytest.fixture
def picture(draw):
    return draw(3, (96, 80))


def test_blur_and_scaling_remove_detail_and_noise_adds_it(picture):
    assert detail(degrade.blur(picture, 2.0)) < 0.8 * detail(picture)
    assert detail(degrade.rescale(picture, 0.25)) < 0.8 * detail(picture)
    assert detail(degrade.noise(picture, 12.0, np.random.default_rng(0))) > 1.1 * detail(picture)


def test_a_lower_jpeg_quality_changes_more(picture):
    def change(quality):
        return np.abs(np.asarray(degrade.jpeg(picture, quality), int) - np.asarray(picture, int)).mean()

    assert change(30) > change(60) > change(95) > 0


def test_a_recapture_depends_on_its_seed(picture):
    first = degrade.recapture(picture, np.random.default_rng(0))
    other = degrade.recapture(picture, np.random.default_rng(1))
    assert first.tobytes() != other.tobytes()
