"""JPEGs in a stream of bytes."""

import io
import os
import threading
import time
import tracemalloc

import pytest
from helpers.jpegs import BOUNDARY, JPEGS, jpeg_of, markers
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edge_runtime.errors import PictureError
from edge_runtime.sources.mjpeg import JpegSplitter, StandardInput, decode


@given(st.lists(st.sampled_from(JPEGS), max_size=6), st.integers(1, 5000))
@settings(max_examples=50, deadline=None)
def test_pictures_are_found_however_the_stream_is_cut(jpegs, block):
    stream = b"".join(BOUNDARY + jpeg + b"\r\n" for jpeg in jpegs)
    splitter = JpegSplitter()
    found = [jpeg for at in range(0, len(stream), block) for jpeg in splitter.feed(stream[at : at + block])]
    assert found == jpegs


def test_a_thumbnail_is_not_a_picture():
    exif = Image.Exif()
    exif[0x9286] = jpeg_of((8, 8), 9)
    jpeg = jpeg_of(exif=exif)
    assert jpeg.count(b"\xff\xd8\xff") == 2
    assert JpegSplitter().feed(jpeg) == [jpeg]


def test_a_cut_picture_is_skipped():
    assert JpegSplitter().feed(JPEGS[0][: len(JPEGS[0]) // 2] + JPEGS[1]) == [JPEGS[1]]


def variants():
    """What cameras send that is not quite a JPEG, but that every viewer shows."""
    jpeg = JPEGS[0]
    at = markers(jpeg)[1]
    return {
        "fill byte before a marker": jpeg[:at] + b"\xff" + jpeg[at:],
        "fill bytes before the end": jpeg[:-2] + b"\xff\xff\xff\xff\xd9",
        "no end": jpeg[:-2],
        "two ends": jpeg + b"\xff\xd9",
        "zeros after the end": jpeg + bytes(700),
        "stray bytes between segments": jpeg[:at] + b"\0\0" + jpeg[at:],
    }


@pytest.mark.parametrize("name", variants())
def test_odd_jpegs_of_cameras_are_read(name):
    found = JpegSplitter().feed((BOUNDARY + variants()[name] + b"\r\n") * 3 + BOUNDARY + JPEGS[1])
    assert len(found) == 4
    assert {decode(jpeg).tobytes() for jpeg in found[:3]} == {decode(JPEGS[0]).tobytes()}


def test_garbage_takes_little_memory():
    splitter = JpegSplitter(longest=100_000)
    tracemalloc.start()
    for _ in range(100):
        splitter.feed(b"\xff\xd8\xff\xe0\xff\xff" + b"\x55" * 50_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 600_000
    splitter.feed(bytes(200_000))
    assert splitter.feed(JPEGS[0]) == [JPEGS[0]]


@pytest.mark.parametrize(
    "piece", [b"\xff\xd8\xff", b"\xff\xd8\xff\xe0\0\x02", b"\xff\xd8\xff\xda\0\x02\xff\xd8", b"\xff"]
)
def test_hostile_streams_take_linear_time(piece):
    data, splitter = piece * (2_000_000 // len(piece)), JpegSplitter()
    began = time.process_time()
    for at in range(0, len(data), 65536):
        splitter.feed(data[at : at + 65536])
    assert time.process_time() - began < 5.0


@given(st.lists(st.one_of(st.binary(max_size=200), st.sampled_from(JPEGS)), max_size=8), st.randoms())
@settings(max_examples=100, deadline=None)
def test_no_bytes_make_the_splitter_fail(parts, random):
    stream = bytearray(b"".join(parts))
    for _ in range(min(len(stream), 5)):
        stream[random.randrange(len(stream))] = random.randrange(256)
    for jpeg in JpegSplitter().feed(bytes(stream)):
        assert jpeg.startswith(b"\xff\xd8\xff")
        assert jpeg.endswith(b"\xff\xd9")


@pytest.fixture
def read_stdin(monkeypatch):
    """Reads the source from bytes on standard input."""

    def read(data):
        file, original = io.BytesIO(data), os.read
        monkeypatch.setattr(os, "read", lambda number, size: original(number, size) if number else file.read(size))
        return list(StandardInput().frames(threading.Event()))

    return read


def test_standard_input_gives_every_picture_in_order(read_stdin):
    assert [frame.load().size for frame in read_stdin(b"".join(JPEGS))] == [(64, 48), (17, 9), (100, 80)]
    (gap,) = read_stdin(b"hello")
    assert gap.failed


def test_streams_carry_jpegs_only():
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    with pytest.raises(PictureError):
        decode(file.getvalue())
