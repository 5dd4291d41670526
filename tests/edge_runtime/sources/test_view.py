import io

import numpy as np
import pytest
from PIL import Image

from edge_runtime.errors import PictureError
from edge_runtime.inference.faces import letterbox
from edge_runtime.model.contract import PixelRecipe
from edge_runtime.pixels.preprocess import square_pixels
from edge_runtime.sources.mjpeg import JpegView, decode
from edge_runtime.sources.opencv import CvView, picture_of
from edge_runtime.sources.view import GLANCE, LoadedView, View


def scene(width=641, height=363):
    """Smooth colours with noise, BGR."""
    random = np.random.default_rng(3)
    small = Image.fromarray(random.integers(0, 256, (9, 16, 3), np.uint8))
    smooth = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), np.int16)
    return (smooth + random.integers(-20, 21, smooth.shape)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("recipe", [PixelRecipe(resize_to=None, crops=5), PixelRecipe(resize_to=160), PixelRecipe()])
@pytest.mark.parametrize(
    "region", [(100.0, 31.0, 400.0, 331.0), (0.0, 0.0, 363.0, 363.0), (641.0 - 70, 0.0, 641.0, 70.0)]
)
def test_faces_cut_from_a_view_are_those_of_the_picture_to_the_bit(recipe, region):
    image = scene()
    view = CvView(image)
    expected = square_pixels(picture_of(image), region, 96, recipe)
    assert np.array_equal(square_pixels(view.pixels(), region, 96, recipe), expected)
    assert view.pixels().mode == "RGBX"
    assert np.array_equal(np.asarray(view()), np.asarray(picture_of(image)))


def test_the_face_detector_sees_the_same_pixels():
    image, whole = scene(), (0.0, 0.0, 641.0, 363.0)
    seen, expected = (letterbox(picture, whole, 192)[0] for picture in (CvView(image).pixels(), picture_of(image)))
    assert np.array_equal(seen, expected)


def views(image):
    file = io.BytesIO()
    picture_of(image).save(file, "JPEG", quality=95)
    return [CvView(image), JpegView(file.getvalue()), LoadedView(lambda: picture_of(image))]


@pytest.mark.parametrize("size", [(641, 363), (363, 641), (1280, 720), (100, 40), (1, 1)])
def test_a_glance_is_the_whole_picture_small_and_grey(size):
    image = scene(*size)
    for view in views(image):
        glance = view.glance()
        assert isinstance(view, View)
        assert glance.size == size
        assert glance.grey.dtype == np.uint8
        assert max(glance.grey.shape) == min(GLANCE, max(size))
        expected = picture_of(image).convert("L").resize(glance.grey.shape[::-1], Image.Resampling.BOX)
        assert np.abs(glance.grey.mean() - np.asarray(expected).mean()) < 25
        assert view.pixels().size == size


def test_pixels_that_are_not_square_and_grey_frames():
    image = scene(320, 240)
    wide = CvView(image, 2.0)
    assert wide.glance().size == wide.pixels().size == wide().size == (640, 240)
    grey = CvView(np.ascontiguousarray(image[:, :, 1]))
    assert grey.pixels().mode == "RGB"
    assert grey.glance().grey.shape == (240, 320)


def test_a_turned_jpeg_is_upright_at_a_glance():
    picture = picture_of(scene(640, 360))
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    picture.save(file, "JPEG", exif=exif, quality=95)
    view = JpegView(file.getvalue())
    assert view.glance().size == view().size == (360, 640)
    upright = np.asarray(view().convert("L").resize((180, 320), Image.Resampling.BOX), np.int16)
    assert np.abs(view.glance().grey - upright).mean() < 4


def jpeg_of(picture, **options):
    file = io.BytesIO()
    picture.save(file, "JPEG", **options)
    return file.getvalue()


@pytest.mark.parametrize("options", [{"subsampling": kind} for kind in (0, 1, 2)] + [{"progressive": True}])
def test_a_jpegs_pixels_are_those_of_pillow_to_the_bit(options):
    for size in ((1280, 720), (641, 363)):
        jpeg = jpeg_of(picture_of(scene(*size)), quality=85, **options)
        view = JpegView(jpeg)
        assert view.pixels().mode == "RGBX"
        assert np.array_equal(np.asarray(view.pixels())[:, :, :3], np.asarray(decode(jpeg)))
        assert np.array_equal(np.asarray(view()), np.asarray(decode(jpeg)))


def test_a_motion_jpeg_without_huffman_tables_and_with_padding_is_read():
    whole = jpeg_of(picture_of(scene()), quality=85)
    start = whole.index(b"\xff\xc4")
    jpeg = whole
    while (at := jpeg.find(b"\xff\xc4", start)) >= 0 and at < jpeg.index(b"\xff\xda"):
        jpeg = jpeg[:at] + jpeg[at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big") :]
    assert len(jpeg) == len(whole) - 432
    view = JpegView(jpeg + bytes(100))
    assert view.pixels().mode == "RGBX"
    assert np.array_equal(np.asarray(view.pixels())[:, :, :3], np.asarray(decode(whole)))
    assert np.array_equal(view.glance().grey, JpegView(whole).glance().grey)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_other_jpegs_are_left_to_pillow(mode):
    jpeg = jpeg_of(picture_of(scene()).convert(mode))
    view = JpegView(jpeg)
    assert np.array_equal(np.asarray(view.pixels()), np.asarray(decode(jpeg)))
    assert view.glance().size == (641, 363)


def test_a_jpeg_that_is_cut_off_is_refused_at_a_glance():
    file = io.BytesIO()
    picture_of(scene()).save(file, "JPEG")
    cut = file.getvalue()[: len(file.getvalue()) // 2]
    for step in (JpegView(cut).glance, JpegView(cut).pixels):
        with pytest.raises(PictureError):
            step()
    with pytest.raises(PictureError):
        decode(cut)
