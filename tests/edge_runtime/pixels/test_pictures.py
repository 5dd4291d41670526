"""Pictures as they come: each odd file is read correctly or refused by name."""

import io
import os
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from edge_runtime.errors import LargePictureError, PictureError
from edge_runtime.pixels.file_types import FORMATS, SUFFIXES, Content, FileType, file_type
from edge_runtime.pixels.pictures import open_picture, read_picture

ORIENTATION = 0x0112


def gradient(width: int = 40, height: int = 20) -> Image.Image:
    ramp = np.linspace(0, 255, width, dtype=np.uint8)
    return Image.fromarray(np.repeat(ramp[None, :], height, axis=0)).convert("RGB")


def encoded(picture: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def tiff(*tags: tuple[int, int]) -> bytes:
    """A grey TIFF of 64×64 zeros, deflated; `tags` replace or add numbers."""
    data = zlib.compress(bytes(64 * 64))
    values = {256: 64, 257: 64, 258: 8, 259: 8, 262: 1, 273: 8, 277: 1, 278: 64, 279: len(data), **dict(tags)}
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(values.items())]
    return (
        b"II*\0"
        + struct.pack("<I", 8 + len(data))
        + data
        + struct.pack("<H", len(entries))
        + b"".join(entries)
        + bytes(4)
    )


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    read = read_picture(encoded(gradient().convert(mode), "PNG"))
    assert (read.mode, read.size) == ("RGB", (40, 20))


@pytest.mark.parametrize("form", [form for form in FORMATS if form != "HEIF"])
def test_every_format_is_read_by_its_content(tmp_path: Path, form: str) -> None:
    path = tmp_path / "picture.bin"
    path.write_bytes(encoded(gradient(), form))
    assert file_type(path) == FileType(Content.PICTURE, form)
    assert np.abs(np.asarray(read_picture(path)).astype(int) - np.asarray(gradient())).max() < 12


def test_a_cmyk_jpeg_keeps_its_colours() -> None:
    read = read_picture(encoded(Image.new("RGB", (32, 32), (200, 40, 40)).convert("CMYK"), "JPEG"))
    assert np.abs(np.asarray(read).mean((0, 1)) - (200, 40, 40)).max() < 12


def test_sixteen_bits_keep_their_brightness() -> None:
    read = read_picture(encoded(Image.fromarray(np.full((16, 16), 0x8000, np.uint16)), "PNG"))
    assert set(np.asarray(read).ravel()) == {0x80}


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_a_turned_picture_is_set_upright(form: str) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # turn clockwise to see it upright
    read = read_picture(encoded(gradient(), form, exif=exif, quality=95))
    assert read.size == (20, 40)
    column = np.asarray(read)[:, 10, 0].astype(int)
    assert column[0] < 12
    assert column[-1] > 243


@pytest.mark.parametrize(
    "odd", [(0x9201, 2, b"text\0"), (0x011A, 2, b"72 dpi\0"), (0x0100, 8, struct.pack(">hh", -1, -2))]
)
def test_odd_exif_leaves_the_orientation(odd: tuple[int, int, bytes]) -> None:
    tag, kind, value = odd
    count = len(value) // (2 if kind == 8 else 1)
    inline = value.ljust(4, b"\0") if len(value) <= 4 else struct.pack(">I", 38)
    entries = sorted(
        [
            (ORIENTATION, struct.pack(">HHIHH", ORIENTATION, 3, 1, 6, 0)),
            (tag, struct.pack(">HHI", tag, kind, count) + inline),
        ]
    )
    exif = (
        b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", 2) + b"".join(entry for _, entry in entries) + bytes(4) + value
    )
    assert read_picture(encoded(gradient(), "JPEG", exif=exif)).size == (20, 40)


def test_odd_exif_leaves_the_turn_of_an_avif() -> None:
    exif = Image.Exif()
    exif.update({ORIENTATION: 6, 0x011A: 72.0})
    data = encoded(gradient(), "AVIF", exif=exif, quality=95)
    odd = data.replace(struct.pack(">HHI", 0x011A, 5, 1), struct.pack(">HHI", 0x011A, 2, 8))
    assert odd != data
    assert read_picture(odd).size == (20, 40)


def test_the_first_picture_of_an_animation_is_taken() -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], comment=b"made by hand")
    assert np.asarray(read_picture(data))[0, 0].tolist() == [255, 0, 0]


def test_wide_pictures_and_single_pixels_are_read() -> None:
    assert read_picture(encoded(Image.new("RGB", (20_000, 30)), "PNG")).size == (20_000, 30)
    assert read_picture(encoded(Image.new("RGB", (1, 1)), "PNG")).size == (1, 1)


def test_pngs_with_much_metadata_are_read() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("workflow", "node " * 300_000, zip=True)
    profile = np.random.default_rng(1).bytes(2_000_000)
    data = encoded(gradient(), "PNG", pnginfo=text, icc_profile=profile)
    np.testing.assert_array_equal(np.asarray(read_picture(data)), np.asarray(gradient()))
    for picture in (data, encoded(gradient(), "JPEG", icc_profile=profile)):
        with open_picture(picture) as opened:
            assert "icc_profile" in opened.info


def test_too_many_pixels_are_refused_undecoded(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(encoded(Image.new("1", (11_000, 10_000)), "PNG"))
    with pytest.raises(LargePictureError, match=r"bomb\.png: 11000×10000 .* over 100 million"):
        read_picture(path)


def test_the_tiles_of_a_tiff_count_as_pixels() -> None:
    assert read_picture(tiff()).size == (64, 64)
    with pytest.raises(LargePictureError):
        read_picture(tiff((322, 30_000), (323, 30_000), (324, 8), (325, 100)))
    with pytest.raises(LargePictureError):
        read_picture(tiff((322, 2048), (323, 1024), (324, 8), (325, 100)), max_pixels=1_000_000)


def test_tiffs_of_very_many_strips_are_refused() -> None:
    began = time.process_time()
    for order, count in (("<", 2_000_000), (">", 500_000)):
        entries = [(256, 4, 1, 64), (257, 4, 1, 64), (273, 4, count, 50), (278, 4, 1, 1), (279, 4, count, 50)]
        table = b"".join(struct.pack(order + "HHII", *entry) for entry in entries)
        head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(entries))
        with pytest.raises(PictureError, match="strips"):
            read_picture(head + table + bytes(4 + 4 * count))
    assert time.process_time() - began < 2


@pytest.mark.parametrize("compression", [2, 4, 34676, 34925, 50000, 50001])
def test_rare_tiff_compressions_are_refused(compression: int) -> None:
    with pytest.raises(PictureError, match="compression"):
        read_picture(tiff((259, compression)))


def test_many_small_segments_cost_no_time() -> None:
    jpeg, gif = encoded(gradient(), "JPEG"), encoded(gradient().convert("P"), "GIF")
    start = 13 + (3 << (gif[10] & 7) + 1)
    exif, comment = b"\xff\xe1\0\x0cExif\0\0abcd", b"!\xfe\1c\0"
    began = time.process_time()
    for data in (
        jpeg[:2] + 300_000 * exif + jpeg[2:],
        jpeg[:2] + 1_000_000 * b"\xff\xfe\0\2" + jpeg[2:],
        gif[:start] + 1_000_000 * comment + gif[start:],
    ):
        with pytest.raises(PictureError, match="segments"):
            read_picture(data)
    assert read_picture(jpeg[:2] + 40_000 * exif + jpeg[2:]).size == (40, 20)
    assert read_picture(gif[:start] + b"!\xfe" + 20_000 * (b"\xff" + bytes(255)) + b"\0" + gif[start:]).size == (40, 20)
    assert time.process_time() - began < 5


def test_stray_and_fill_bytes_between_segments_are_skipped() -> None:
    data = encoded(gradient(), "JPEG")
    first, scan = data.index(b"\xff\xdb"), data.index(b"\xff\xda")
    odd = data[:first] + b"\0\0" + data[first:scan] + b"stray\xff\xff" + data[scan:]
    np.testing.assert_array_equal(np.asarray(read_picture(odd)), np.asarray(read_picture(data)))


def test_a_jpeg_of_too_many_scans_is_refused() -> None:
    data = encoded(gradient(), "JPEG", progressive=True)
    scan = data.index(b"\xff\xda")
    with pytest.raises(PictureError, match="100 scans"):
        read_picture(data[:scan] + 101 * data[scan : scan + 20] + data[scan:])


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\0\0\0\x1cftypheic\0\0\0\0mif1heic", FileType(Content.PICTURE, "HEIF")),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avif", FileType(Content.PICTURE, "AVIF")),
        (b"\0\0\0\x0cjP  \r\n\x87\n", FileType(Content.OTHER_PICTURE, "JPEG 2000")),
        (b"%!PS-Adobe-3.0 EPSF-3.0", FileType(Content.OTHER_PICTURE, "PostScript")),
        (bytes(40) + b"TRUEVISION-XFILE.\0", FileType(Content.OTHER_PICTURE, "TGA")),
        (b"ID3\4\0", FileType(Content.AUDIO, "MP3")),
        (b"\0\0\0\x20ftypM4A ", FileType(Content.AUDIO, "AAC")),
        (b"OggS\0\2" + bytes(22) + b"\1\x1e\1vorbis", FileType(Content.AUDIO, "Ogg")),
        (b"\0\0\0\x20ftypisom", FileType(Content.OTHER)),
        (b"RIFF\0\0\0\0AVI LIST", FileType(Content.OTHER)),
        (b"", FileType(Content.OTHER)),
    ],
)
def test_files_are_recognized_by_content(tmp_path: Path, content: bytes, kind: FileType) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert file_type(path) == kind


def test_heic_is_read_with_its_extra_only(monkeypatch: pytest.MonkeyPatch) -> None:
    pillow_heif = pytest.importorskip("pillow_heif", reason="needs pillow-heif")
    file = io.BytesIO()
    pillow_heif.from_pillow(gradient(128, 64)).save(file)
    read = np.asarray(read_picture(file.getvalue())).astype(int)
    assert np.abs(read - np.asarray(gradient(128, 64))).mean() < 4
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(PictureError, match="pip install pillow-heif"):
        read_picture(file.getvalue())


@pytest.mark.parametrize(
    ("form", "name"), [("EPS", "PostScript"), ("JPEG2000", "JPEG 2000"), ("TGA", "TGA"), ("ICO", "ICO")]
)
def test_other_formats_are_refused_by_name(tmp_path: Path, form: str, name: str) -> None:
    path = tmp_path / ("face.tga" if form == "TGA" else "face.jpg")
    path.write_bytes(encoded(gradient(), form))
    with pytest.raises(PictureError, match=rf"face\.\w+: {name} pictures can't be read"):
        read_picture(path)


def test_suffixes_are_lower_case_and_known() -> None:
    assert {".jpg", ".jfif", ".jpe", ".mpo", ".heic", ".avif"} <= SUFFIXES
    assert all(suffix == suffix.lower() for suffix in SUFFIXES)


QUIET = """
import io, sys, warnings
from concurrent.futures import ThreadPoolExecutor
from PIL import Image
from edge_runtime.pixels.pictures import open_picture, read_picture
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


def test_only_pillows_warnings_are_silenced() -> None:
    done = subprocess.run([sys.executable, "-c", QUIET], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stderr.splitlines() if "Warning" in line)
    assert line.endswith("UserWarning: others are heard")


@pytest.mark.parametrize("content", [encoded(gradient(400, 400), "JPEG")[:-400], b"", b"just text", b"\xff\xd8\xff"])
def test_broken_files_are_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.jpg"
    path.write_bytes(content)
    with pytest.raises(PictureError, match=r"broken\.jpg"):
        read_picture(path)


def test_what_is_not_a_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "gone.jpg")
    for name, message in (
        ("pipe.jpg", "not a regular file"),
        ("link.jpg", "broken link"),
        ("gone.jpg", "not found$"),
        (".", "not a regular file"),
    ):
        with pytest.raises(PictureError, match=message):
            read_picture(tmp_path / name)


def test_pixels_without_a_range_are_refused() -> None:
    with pytest.raises(PictureError, match="mode F"):
        read_picture(encoded(Image.fromarray(np.ones((8, 8), np.float32)), "TIFF"))
