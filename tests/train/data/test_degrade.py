import numpy as np
import pytest

from train.data import degrade


def detail(picture):
    """How much changes from one pixel to the next, in grey levels."""
    return float(np.abs(np.diff(np.asarray(picture.convert("L"), dtype=float), axis=1)).mean())


@pytest.fixture
def picture(draw):
    return draw(3, (96, 80))


@pytest.mark.parametrize("condition", [*degrade.ONE_BY_ONE, degrade.CROSSED[-1]], ids=lambda row: row.name)
def test_every_row_of_the_grid_keeps_size_and_mode_and_repeats(picture, condition):
    changed, again = condition(picture, 5), condition(picture, 5)
    assert (changed.size, changed.mode) == (picture.size, "RGB")
    assert changed.tobytes() == again.tobytes()
    assert (changed.tobytes() == picture.tobytes()) == (condition.name == "clean")


def test_blur_and_scaling_take_detail_away_and_noise_brings_it(picture):
    assert detail(degrade.blur(picture, 2.0)) < 0.8 * detail(picture)
    assert detail(degrade.rescale(picture, 0.25)) < 0.8 * detail(picture)
    assert detail(degrade.noise(picture, 12.0, np.random.default_rng(0))) > 1.1 * detail(picture)


def test_a_lower_jpeg_quality_changes_more(picture):
    def change(quality):
        return np.abs(np.asarray(degrade.jpeg(picture, quality), int) - np.asarray(picture, int)).mean()

    assert change(30) > change(60) > change(95) > 0


def test_a_recapture_moves_the_view_and_differs_by_its_seed(picture):
    first = degrade.recapture(picture, np.random.default_rng(0))
    other = degrade.recapture(picture, np.random.default_rng(1))
    assert first.tobytes() != other.tobytes()


def test_names_of_conditions_are_told_apart():
    names = [condition.name for condition in degrade.CROSSED]
    assert len(set(names)) == len(names) == 40
    assert degrade.Condition(0.5, 1.0, True, 50).name == "scale 0.5, blur 1, recapture, JPEG 50"
