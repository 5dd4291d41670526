"""Faces blended into themselves."""

import numpy as np
import pytest
from helpers.drawn_face import draw_face
from PIL import Image

from edge_runtime.inference.faces import FaceDetector
from train.self_made.blended import blend_into_itself, face_mask, find_points

POINTS = np.array([(80, 90), (140, 90), (110, 125), (110, 155), (60, 100), (160, 100)], np.float32)
SIZE = (240, 220)


def test_mask_is_soft_and_on_the_face():
    masks = [face_mask(POINTS, SIZE, np.random.default_rng(seed)) for seed in range(20)]
    assert all(0.2 < mask.max() < 1.001 and mask[:20].max() < 0.01 and mask[:, -20:].max() < 0.01 for mask in masks)
    assert all(np.abs(np.diff(mask, axis=0)).max() < 0.5 for mask in masks)
    assert min(mask[100:130, 100:120].mean() for mask in masks) > 0.1
    assert len({round(float(mask.sum())) for mask in masks}) == 20


def test_background_stays_and_the_face_changes(draw):
    picture = draw(1, SIZE[::-1])
    for seed in range(5):
        blended = blend_into_itself(picture, POINTS, np.random.default_rng(seed))
        change = np.abs(blended - np.asarray(picture)).mean(-1)
        assert change[:20].max() < 0.5
        assert change[100:130, 100:120].mean() > 1


@pytest.mark.parametrize("radius", [60, 130])
def test_points_of_a_face_that_fills_the_picture(face_model, radius):
    picture = draw_face((200, 160, 140), (100, 110), radius, Image.new("RGB", (200, 220), (90, 110, 120)))
    points = find_points(FaceDetector(face_model), picture)
    left, right, _, mouth = points[:4]
    assert abs((left[0] + right[0]) / 2 - 100) < 0.2 * radius
    assert left[0] < 100 < right[0]
    assert mouth[1] > 110 > left[1]


def test_no_face_no_points(face_model):
    assert find_points(FaceDetector(face_model), Image.new("RGB", (100, 100))) is None
