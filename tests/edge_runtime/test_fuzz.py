"""Bytes that nobody meant: whatever comes in, the only errors that leave are the family's own.

FUZZ_INPUTS says how many inputs each test tries; `make soak` tries a hundred thousand in all.
"""

import io
import json
import os
import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from benchmarks.studies.small import small_contract
from edge_runtime.errors import BundleError, PictureError
from edge_runtime.model.bundle import Manifest
from edge_runtime.pixels.pictures import read_picture
from edge_runtime.sources.mjpeg import JpegSplitter, StandardInput, decode

INPUTS = int(os.environ.get("FUZZ_INPUTS", "1500"))
fuzzed = settings(
    max_examples=INPUTS,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


def encoded(form, mode="RGB", **options):
    pixels = np.random.default_rng(1).integers(0, 256, (24, 24, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, form, **options)
    return file.getvalue()


def animated():
    frames = [Image.new("P", (16, 16), colour) for colour in range(3)]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return file.getvalue()


PICTURES = [
    encoded("JPEG"),
    encoded("JPEG", "CMYK"),
    encoded("JPEG", progressive=True),
    encoded("PNG"),
    encoded("PNG", "P"),
    encoded("PNG", "L"),
    encoded("BMP"),
    encoded("WEBP"),
    encoded("TIFF"),
    encoded("TIFF", compression="tiff_lzw"),
    encoded("PPM"),
    animated(),
]
MODEL = json.loads(Manifest(small_contract(), {"int8/model.xml": "0" * 64}).to_json())


@st.composite
def spoiled(draw, originals):
    """Bytes of a real file with pieces changed, cut out, doubled or cut off."""
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        what = draw(st.sampled_from(("change", "insert", "cut", "end", "double")))
        if what == "change":
            data[at : at + 4] = draw(st.binary(max_size=4))
        elif what == "insert":
            data[at:at] = draw(st.binary(max_size=30))
        elif what == "cut":
            del data[at : at + draw(st.integers(1, 60))]
        elif what == "end":
            del data[at:]
        else:
            data += data[at : at + 200]
    return bytes(data)


def told(read, data, family):
    """Return what `read` makes of `data`, or None where it told in one line of an error of `family`."""
    try:
        return read(data)
    except family as error:
        if len(str(error).splitlines()) > 1:
            raise AssertionError(f"more than a line: {error}") from error
        return None


@given(st.one_of(st.binary(max_size=300), spoiled(PICTURES)))
@fuzzed
def test_no_bytes_of_a_picture_raise_anything_else(data):
    picture = told(read_picture, data, PictureError)
    if picture is not None:
        assert picture.mode == "RGB"
        assert picture.getpixel((0, 0)) is not None


@given(st.lists(st.one_of(st.binary(max_size=100), spoiled(PICTURES[:3])), max_size=5), st.integers(1, 997))
@fuzzed
def test_no_bytes_of_an_mjpeg_stream_raise_anything_else(parts, block):
    stream, splitter = b"".join(parts), JpegSplitter()
    for at in range(0, len(stream), block):
        for jpeg in splitter.feed(stream[at : at + block]):
            told(decode, jpeg, PictureError)


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=10), inner, max_size=4)),
    max_leaves=6,
)


@st.composite
def spoiled_model(draw):
    """A model.json in which some values are others, are gone, or are new."""
    model = json.loads(json.dumps(MODEL))
    for _ in range(draw(st.integers(1, 3))):
        place = model
        while isinstance(place, dict) and place:
            key = draw(st.sampled_from(sorted(place)))
            if not isinstance(place[key], dict) or draw(st.booleans()):
                break
            place = place[key]
        if not isinstance(place, dict) or not place:
            place, key = model, "contract"
        match draw(st.sampled_from(("change", "remove", "add"))):
            case "change":
                place[key] = draw(VALUES)
            case "remove":
                place.pop(key, None)
            case "add":
                place[draw(st.text(max_size=8))] = draw(VALUES)
    return json.dumps(model)


@given(st.one_of(st.text(max_size=200), VALUES.map(json.dumps), spoiled_model(), spoiled([json.dumps(MODEL).encode()])))
@example(json.dumps(MODEL | {"files": {"two\nlines": ""}}))
@example(json.dumps(MODEL | {"contract": {"two\nlines": ""}}))
@example(json.dumps(MODEL | {"contract": MODEL["contract"] | {"mean": [None, 0.5, 0.5]}}))
@fuzzed
def test_no_model_json_raises_anything_else(text):
    text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    manifest = told(Manifest.from_json, text, BundleError)
    if manifest is None:
        return
    contract = manifest.contract
    for precision in ("fp32", "int8"):
        calibration = contract.calibration(precision)
        calibration.verdict(calibration.score(1.0))
    contract.to_rt_info()


@pytest.mark.parametrize(
    "data", [b"\xff" * 10_000, b"\xff\xd8\xff" * 3000, b"\xff\xd8\xff\xe0\0\0" * 500, b"\0" * 10_000]
)
def test_streams_made_to_hurt_are_gone_through_quickly(data, monkeypatch):
    parts = [data] * 50 + [b""]
    monkeypatch.setattr(os, "read", lambda number, size: parts.pop(0))
    (gap,) = StandardInput().frames(threading.Event())
    assert gap.failed
