import io

import numpy as np
import pytest
from PIL import Image

from benchmarks.studies.jpeg import decoders, difference, with_pillow
from benchmarks.studies.pipeline import textures


@pytest.fixture(scope="module")
def jpeg():
    saved = io.BytesIO()
    textures(1, 64)[0].save(saved, "JPEG", quality=90, subsampling="4:2:0")
    return saved.getvalue()


def test_difference_is_the_largest_of_any_pixel(jpeg):
    def off_by_three(data):
        pixels = np.array(with_pillow(data), np.int16)
        pixels[5, 7, 2] -= 3
        return pixels

    assert difference(with_pillow, jpeg) == 0
    assert difference(off_by_three, jpeg) == 3
    assert difference(lambda data: Image.open(io.BytesIO(data[:9])), jpeg) is None


def test_opencv_decodes_to_the_same_pixels(jpeg):
    name, decode = next(decoders())
    assert (name, difference(decode, jpeg)) == ("OpenCV", 0)
