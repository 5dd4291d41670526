import numpy as np
import pytest
from PIL import ImageFilter

from edge_runtime.judging.results import Reason
from edge_runtime.model.contract import ModelContract, PixelRecipe
from edge_runtime.pixels.preprocess import face_pixels
from edge_runtime.pixels.quality import DEFAULT_LIMITS, QualityLimits, detail, too_poor, too_small


def test_a_face_is_too_small_by_its_shorter_side():
    limits = QualityLimits(min_face=48)
    assert too_small((10, 10, 58, 200), limits) is None
    assert too_small((10, 10, 57, 200), limits) == Reason.TOO_SMALL


def test_a_black_face_is_too_dark():
    random = np.random.default_rng(1)
    assert too_poor(random.integers(0, 20, (64, 64, 3), np.uint8), DEFAULT_LIMITS) == Reason.TOO_DARK


def test_a_flat_or_blurred_face_is_too_blurred():
    ramp = np.tile(np.linspace(50, 200, 64, dtype=np.uint8), (64, 1))
    assert too_poor(np.stack([ramp] * 3, -1), DEFAULT_LIMITS) == Reason.TOO_BLURRED


def test_a_face_with_light_and_detail_is_good_enough():
    random = np.random.default_rng(1)
    assert too_poor(random.integers(0, 256, (64, 64, 3), np.uint8), DEFAULT_LIMITS) is None


def test_detail_is_the_mean_second_difference():
    stripes = np.tile(np.array([0, 10], np.uint8), (8, 4))
    assert detail(stripes) == (20.0 + 0.0) / 2


def test_photographs_are_sharp_enough_and_blurred_ones_are_not(shared, picture_at):
    contract = ModelContract("any", pixels=PixelRecipe(resize_to=None))
    folder = shared / "faces" / "stylegan" / "test"
    pictures = [picture_at(path) for path in sorted(folder.glob("*/*.jpg"))[::100]]
    sharp = [too_poor(face_pixels(picture, None, contract)[0], DEFAULT_LIMITS) for picture in pictures]
    assert sharp.count(Reason.TOO_BLURRED) == 0
    soft = [picture.filter(ImageFilter.GaussianBlur(4)) for picture in pictures]
    poor = [too_poor(face_pixels(picture, None, contract)[0], DEFAULT_LIMITS) for picture in soft]
    assert poor.count(None) == 0


@pytest.fixture
def picture_at():
    from edge_runtime.pixels.pictures import read_picture

    return read_picture
