import numpy as np
import pytest
from PIL import Image, ImageFilter

from edge_runtime.judging.results import Reason
from edge_runtime.model.contract import ModelContract, PixelRecipe
from edge_runtime.pixels.pictures import read_picture
from edge_runtime.pixels.preprocess import face_pixels
from edge_runtime.pixels.quality import (
    DEFAULT_LIMITS,
    QualityLimits,
    blockiness,
    detail,
    sharpness,
    too_poor,
    too_small,
)
from train.data.degrade import jpeg, noise, rescale

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


def test_blocks_show_after_compression():
    random = np.random.default_rng(2)
    small = Image.fromarray(random.integers(0, 256, (40, 40, 3), np.uint8))
    picture = noise(small.resize((160, 160), Image.Resampling.BICUBIC), 4.0, random)
    plain, poor = (
        blockiness(np.asarray(changed.crop((3, 5, 131, 133)))[:, :, 1]) for changed in (picture, jpeg(picture, 30))
    )
    assert plain < 1.25 < poor


def test_blockiness_is_the_strongest_of_eight_phases_over_the_median():
    grey = np.random.default_rng(3).integers(0, 256, (43, 43), np.uint8)
    ratios = []
    for rows in (grey.astype(float), grey.T.astype(float)):
        jumps = np.abs(rows[:, 3:] - 3 * rows[:, 2:-1] + 3 * rows[:, 1:-2] - rows[:, :-3]).mean(axis=0)
        phases = [jumps[phase:40:8].mean() for phase in range(8)]
        ratios.append(max(phases) / (np.median(phases) + 0.5))
    assert blockiness(grey) == pytest.approx(min(ratios), rel=1e-12)


def test_sharpness_is_of_the_edges_not_of_the_motif():
    random = np.random.default_rng(2)
    busy = Image.fromarray(random.integers(0, 256, (128, 128, 3), np.uint8)).filter(ImageFilter.GaussianBlur(0.7))
    calm = Image.blend(busy, Image.new("RGB", busy.size, (128, 128, 128)), 0.7)
    found = [sharpness(np.asarray(p)[:, :, 1]) for p in (busy, calm, rescale(busy, 0.5), rescale(calm, 0.5))]
    assert found[:2] == pytest.approx([found[0]] * 2, rel=0.03)
    assert max(found[2:]) < 0.7 * found[0]


def test_photographs_are_sharp_unless_blurred(shared):
    contract = ModelContract("any", pixels=PixelRecipe(resize_to=None))
    paths = sorted((shared / "faces" / "stylegan" / "test").glob("*/*.jpg"))[::100]
    for picture in map(read_picture, paths):
        sharp, soft = (
            face_pixels(p, None, contract)[0] for p in (picture, picture.filter(ImageFilter.GaussianBlur(4)))
        )
        assert too_poor(sharp, DEFAULT_LIMITS) is not Reason.TOO_BLURRED
        assert too_poor(soft, DEFAULT_LIMITS) is not None
