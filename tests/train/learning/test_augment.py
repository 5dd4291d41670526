import numpy as np
import pytest

from edge_runtime.model.contract import PixelRecipe
from train.learning.augment import CHANGES, FULL, SWITCHES, change_picture, choose_part, without


@pytest.mark.parametrize("name", list(CHANGES))
def test_change_keeps_size_and_repeats(draw, name):
    picture = draw(4, (72, 64))
    results = [change_picture(picture, {name: 1.0}, np.random.default_rng(9)) for _ in range(2)]
    assert results[0].size == picture.size
    assert results[0].mode == "RGB"
    assert results[0].tobytes() == results[1].tobytes() != picture.tobytes()


def test_every_change_can_be_switched_off(draw):
    picture = draw(4)
    for name in SWITCHES:
        assert name not in without(FULL, name)
    assert without(FULL, "all") == {}
    assert change_picture(picture, without(FULL, "all"), np.random.default_rng(0)) is picture


def test_native_part_keeps_its_scale_by_default():
    recipe, random = PixelRecipe(resize_to=None), np.random.default_rng(0)
    parts = [choose_part((256, 256), 224, recipe, {"crop": 1.0}, random) for _ in range(50)]
    assert {right - left for left, _, right, _ in parts} == {224.0}
    assert len({left for left, *_ in parts}) > 10
    scaled = [choose_part((256, 256), 160, recipe, {"scale": 1.0}, random) for _ in range(50)]
    assert len({right - left for left, _, right, _ in scaled}) > 10


def test_part_without_crop_is_the_centre():
    random = np.random.default_rng(0)
    assert choose_part((256, 256), 224, PixelRecipe(resize_to=None), {}, random) == (16, 16, 240, 240)
    assert choose_part((100, 100), 224, PixelRecipe(resize_to=224), {}, random) == (0, 0, 100, 100)


def test_part_lies_inside_the_face():
    random = np.random.default_rng(0)
    for recipe in (PixelRecipe(resize_to=None), PixelRecipe(resize_to=224), PixelRecipe(resize_to=256)):
        for _ in range(100):
            size = int(random.integers(1, 300))
            left, top, right, bottom = choose_part((size, size), 224, recipe, {"crop": 1.0, "scale": 1.0}, random)
            assert 0 <= left < right <= size
            assert 0 <= top < bottom <= size
