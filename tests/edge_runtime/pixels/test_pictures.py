"""Pictures as they come: each odd file is read rightly or refused with its name."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_runtime.errors import PictureError
from edge_runtime.pixels.pictures import read_picture


def gradient(width: int = 40, height: int = 20) -> Image.Image:
    ramp = np.linspace(0, 255, width, dtype=np.uint8)
    return Image.fromarray(np.repeat(ramp[None, :], height, axis=0)).convert("RGB")


def saved(picture: Image.Image, path: Path, **options: object) -> Path:
    picture.save(path, **options)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    read = read_picture(saved(gradient().convert(mode), tmp_path / "picture.png"))
    assert (read.mode, read.size) == ("RGB", (40, 20))


def test_a_cmyk_jpeg_keeps_its_colours(tmp_path: Path) -> None:
    read = read_picture(saved(Image.new("RGB", (32, 32), (200, 40, 40)).convert("CMYK"), tmp_path / "cmyk.jpg"))
    assert np.abs(np.asarray(read).mean((0, 1)) - (200, 40, 40)).max() < 12


def test_a_sixteen_bit_picture_keeps_its_brightness(tmp_path: Path) -> None:
    deep = Image.fromarray(np.full((16, 16), 0x8000, np.uint16))
    read = read_picture(saved(deep, tmp_path / "deep.png"))
    assert set(np.asarray(read).ravel()) == {0x80}


def test_a_turned_picture_is_set_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it upright
    path = saved(gradient(), tmp_path / "turned.jpg", exif=exif, quality=95)
    read = read_picture(path)
    assert read.size == (20, 40)
    column = np.asarray(read)[:, 10, 0].astype(int)
    assert column[0] < 10
    assert column[-1] > 245


def test_of_an_animation_the_first_picture_is_taken(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    path = saved(frames[0], tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert np.asarray(read_picture(path))[0, 0].tolist() == [255, 0, 0]


def test_bytes_are_read_like_a_file(tmp_path: Path) -> None:
    path = saved(gradient(), tmp_path / "picture.jpg")
    np.testing.assert_array_equal(np.asarray(read_picture(path.read_bytes())), np.asarray(read_picture(path)))


def test_a_wide_picture_and_a_single_pixel_are_read(tmp_path: Path) -> None:
    assert read_picture(saved(Image.new("RGB", (20_000, 30)), tmp_path / "wide.png")).size == (20_000, 30)
    assert read_picture(saved(Image.new("RGB", (1, 1)), tmp_path / "dot.png")).size == (1, 1)


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = saved(Image.new("1", (11_000, 10_000)), tmp_path / "bomb.png")
    with pytest.raises(PictureError, match=r"bomb\.png: 11000×10000 is over 100 million"):
        read_picture(path)


QUIET = """
import io, sys, warnings
from concurrent.futures import ThreadPoolExecutor
from PIL import Image
from edge_runtime.pixels.pictures import read_picture
file = io.BytesIO()
Image.new("RGB", (15, 10)).save(file, "PNG")
Image.MAX_IMAGE_PIXELS = 100
filters, seen, original = warnings.filters, set(), Image.Image.load
def load(picture):
    seen.add(id(warnings.filters))
    return original(picture)
Image.Image.load = load
with ThreadPoolExecutor(4) as pool:
    list(pool.map(read_picture, [file.getvalue()] * 100))
assert seen == {id(filters)}, "reading changes the filters of every other thread"
warnings.warn("others are heard")
"""


def test_pillows_warnings_are_silenced_once_and_not_around_each_picture_of_each_thread() -> None:
    done = subprocess.run([sys.executable, "-c", QUIET], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stderr.splitlines() if "Warning" in line)
    assert line.endswith("UserWarning: others are heard")


def test_a_picture_cut_off_is_refused_with_its_name(tmp_path: Path) -> None:
    path = saved(gradient(400, 400), tmp_path / "whole.jpg")
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(PictureError, match=r"cut\.jpg"):
        read_picture(cut)


@pytest.mark.parametrize("content", [b"", b"just text, no picture", b"\xff\xd8\xff"])
def test_what_is_no_picture_is_refused_with_its_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "text.jpg"
    path.write_bytes(content)
    with pytest.raises(PictureError, match=r"text\.jpg"):
        read_picture(path)


def test_a_pipe_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(PictureError, match="no regular file"):
        read_picture(tmp_path / "pipe.jpg")


def test_a_folder_a_missing_file_and_a_dangling_link_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "link.jpg").symlink_to(tmp_path / "gone.jpg")
    with pytest.raises(PictureError, match="points nowhere"):
        read_picture(tmp_path / "link.jpg")
    with pytest.raises(PictureError, match=r"not found$"):
        read_picture(tmp_path / "gone.jpg")
    with pytest.raises(PictureError, match="no regular file"):
        read_picture(tmp_path)


def test_a_picture_without_a_fixed_range_is_refused(tmp_path: Path) -> None:
    path = saved(Image.fromarray(np.ones((8, 8), np.float32)), tmp_path / "float.tiff")
    with pytest.raises(PictureError, match=r"float\.tiff: pixels of mode F .* save it with"):
        read_picture(path)
