"""The model's pixels are exact where they must be and never outside the picture."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edge_runtime.model.contract import Fit, Framing, ModelContract, PixelRecipe
from edge_runtime.pixels.preprocess import crop_offsets, face_pixels, face_region, square_within


def picture(width: int, height: int) -> Image.Image:
    values = np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def contract(size: int = 32, **changes: object) -> ModelContract:
    return ModelContract("resnet50", input_size=size, **changes)  # type: ignore[arg-type]


def test_a_native_crop_changes_no_bit() -> None:
    face = picture(64, 64)
    pixels = face_pixels(face, None, contract(32, pixels=PixelRecipe(resize_to=None)))
    np.testing.assert_array_equal(pixels[0], np.asarray(face)[16:48, 16:48])


def test_five_crops_are_centre_and_corners() -> None:
    face = picture(64, 64)
    pixels = face_pixels(face, None, contract(32, pixels=PixelRecipe(resize_to=None, crops=5)))
    whole = np.asarray(face)
    corners = [whole[16:48, 16:48], whole[:32, :32], whole[:32, 32:], whole[32:, :32], whole[32:, 32:]]
    np.testing.assert_array_equal(pixels, np.stack(corners))


def test_a_resize_is_pillows_own() -> None:
    face = picture(100, 100)
    pixels = face_pixels(face, None, contract(32, pixels=PixelRecipe(resize_to=32, filter="bicubic")))
    np.testing.assert_array_equal(pixels[0], np.asarray(face.resize((32, 32), Image.Resampling.BICUBIC)))


def test_a_larger_resize_is_cropped() -> None:
    face = picture(100, 100)
    pixels = face_pixels(face, None, contract(32, pixels=PixelRecipe(resize_to=40)))
    expected = np.asarray(face.resize((40, 40), Image.Resampling.BILINEAR))[4:36, 4:36]
    np.testing.assert_array_equal(pixels[0], expected)


def test_small_faces_are_enlarged() -> None:
    assert face_pixels(picture(1, 1), None, contract(32, pixels=PixelRecipe(resize_to=None))).shape == (1, 32, 32, 3)


def test_wide_pictures_are_cut_or_stretched() -> None:
    wide = picture(100, 60)
    assert face_region(wide.size, None, contract()) == (20, 0, 80, 60)
    stretched = face_pixels(wide, None, contract(pixels=PixelRecipe(resize_to=32, fit=Fit.STRETCH)))
    np.testing.assert_array_equal(stretched[0], np.asarray(wide.resize((32, 32), Image.Resampling.BILINEAR)))


def test_only_detected_faces_get_a_margin() -> None:
    box = (40, 40, 60, 60)
    assert face_region((100, 100), box, contract(framing=Framing.DETECTED, margin=0.5)) == (35, 35, 65, 65)
    assert face_region((100, 100), box, contract(framing=Framing.WHOLE, margin=0.5)) == box


@pytest.mark.parametrize(
    ("box", "square"),
    [
        ((0, 0, 10, 10), (0, 0, 20, 20)),  # shifted right and down
        ((90, 50, 100, 60), (80, 45, 100, 65)),  # shifted left
        ((-50, -50, 150, 150), (0, 0, 100, 100)),  # shrunk
    ],
)
def test_squares_are_shifted_then_shrunk(box: tuple, square: tuple) -> None:
    assert square_within((100, 100), box, 1.0) == square


@given(
    st.tuples(st.integers(1, 3000), st.integers(1, 3000)),
    st.tuples(*[st.floats(-5000, 8000, allow_nan=False) for _ in range(4)]),
    st.floats(0, 2),
)
def test_a_square_never_leaves_the_picture(size: tuple, box: tuple, margin: float) -> None:
    left, top, right, bottom = square_within(size, box, margin)
    assert 0 <= left < right <= size[0]
    assert 0 <= top < bottom <= size[1]
    assert right - left == bottom - top


def test_crops_may_fill_their_square() -> None:
    assert crop_offsets((32, 32), 32, 5) == [(0, 0)] * 5
