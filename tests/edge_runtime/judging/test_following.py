import numpy as np
import pytest
from PIL import Image

from edge_runtime.judging.following import follow
from edge_runtime.pixels.boxes import overlaps
from edge_runtime.sources.opencv import CvView


def glance(left, top, side=200, size=(1280, 720)):
    """A glance of a textured square on another texture."""
    random = np.random.default_rng(1)
    wall = Image.fromarray(random.integers(0, 256, (40, 60, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    face = Image.fromarray(random.integers(0, 256, (12, 12, 3), np.uint8)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    wall.paste(face, (left, top))
    return CvView(np.asarray(wall)).glance()


@pytest.mark.parametrize(("x", "y"), [(0, 0), (12, 0), (-20, 16), (30, 30)])
def test_a_box_follows_its_face(x, y):
    (box,) = follow(glance(500, 200), glance(500 + x, 200 + y), [(500, 200, 700, 400)])
    assert overlaps(box, [(500 + x, 200 + y, 700 + x, 400 + y)])[0] > 0.95


def test_several_boxes_move_by_themselves_and_stay_inside():
    boxes = [(500.0, 200.0, 700.0, 400.0), (0.0, 0.0, 100.0, 100.0)]
    first, second = follow(glance(500, 200), glance(520, 200), boxes)
    assert first == pytest.approx((520, 200, 720, 400), abs=4)
    assert second == pytest.approx((0, 0, 100, 100), abs=2)
    assert follow(glance(0, 0), glance(0, 0), []) == []


def test_another_picture_is_not_followed():
    assert follow(glance(500, 200), glance(500, 200, size=(640, 480)), [(500, 200, 700, 400)]) is None
