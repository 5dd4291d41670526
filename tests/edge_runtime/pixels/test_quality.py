import numpy as np
import pytest
from PIL import ImageFilter

from edge_runtime.judging.results import Reason
from edge_runtime.model.contract import ModelContract, PixelRecipe
from edge_runtime.pixels.pictures import read_picture
from edge_runtime.pixels.preprocess import face_pixels
from edge_runtime.pixels.quality import DEFAULT_LIMITS, QualityLimits, detail, too_poor, too_small

NOISE = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
RAMP = np.stack([np.tile(np.linspace(50, 200, 64, dtype=np.uint8), (64, 1))] * 3, -1)


def test_the_shorter_side_counts():
    limits = QualityLimits(min_face=48)
    assert too_small((10, 10, 58, 200), limits) is None
    assert too_small((10, 10, 57, 200), limits) is Reason.TOO_SMALL


@pytest.mark.parametrize(
    ("pixels", "reason"), [(NOISE, None), (NOISE // 13, Reason.TOO_DARK), (RAMP, Reason.TOO_BLURRED)]
)
def test_dark_and_flat_faces_are_poor(pixels, reason):
    assert too_poor(pixels, DEFAULT_LIMITS) is reason


def test_detail_is_the_mean_second_difference():
    stripes = np.tile(np.array([0, 10], np.uint8), (8, 4))
    assert detail(stripes) == (20.0 + 0.0) / 2


def test_photographs_are_sharp_unless_blurred(shared):
    contract = ModelContract("any", pixels=PixelRecipe(resize_to=None))
    paths = sorted((shared / "faces" / "stylegan" / "test").glob("*/*.jpg"))[::100]
    for picture in map(read_picture, paths):
        sharp, soft = (
            face_pixels(p, None, contract)[0] for p in (picture, picture.filter(ImageFilter.GaussianBlur(4)))
        )
        assert too_poor(sharp, DEFAULT_LIMITS) is not Reason.TOO_BLURRED
        assert too_poor(soft, DEFAULT_LIMITS) is not None
