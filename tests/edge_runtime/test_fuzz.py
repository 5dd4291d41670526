"""Whatever bytes come in, the only errors that leave are EdgeErrors.

FUZZ_INPUTS sets how many inputs each test tries; `make soak` tries a hundred thousand in all.
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
from edge_runtime.model.bundle import Bundle, Manifest, sha256
from edge_runtime.model.golden import check_golden
from edge_runtime.model.profile import Profile
from edge_runtime.pixels.pictures import read_picture
from edge_runtime.pixels.preprocess import face_pixels
from edge_runtime.sources.mjpeg import JpegSplitter, StandardInput, decode

INPUTS = int(os.environ.get("FUZZ_INPUTS", "250"))
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


EXIF = Image.Exif()
EXIF.update({0x0112: 6, 0x010F: "maker", 0x011A: 72.0})

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
    encoded("AVIF"),
    animated(),
    *(encoded(form, exif=EXIF, icc_profile=b"profile" * 9) for form in ("JPEG", "PNG", "WEBP", "TIFF")),
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


def tried(read, data, family):
    """Return what `read` makes of `data`, or None if it raised an error of `family`, of one line."""
    try:
        return read(data)
    except family as error:
        if len(str(error).splitlines()) > 1:
            raise AssertionError(f"more than a line: {error}") from error
        return None


@given(st.one_of(st.binary(max_size=300), spoiled(PICTURES)))
@fuzzed
def test_pictures_raise_picture_errors_only(data):
    picture = tried(read_picture, data, PictureError)
    if picture is not None:
        assert picture.mode == "RGB"
        assert picture.getpixel((0, 0)) is not None


@given(st.lists(st.one_of(st.binary(max_size=100), spoiled(PICTURES[:3])), max_size=5), st.integers(1, 997))
@fuzzed
def test_mjpeg_streams_raise_picture_errors_only(parts, block):
    stream, splitter = b"".join(parts), JpegSplitter()
    for at in range(0, len(stream), block):
        for jpeg in splitter.feed(stream[at : at + block]):
            tried(decode, jpeg, PictureError)


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=10), inner, max_size=4)),
    max_leaves=6,
)


HARD = st.sampled_from([10**400, -(10**400), 224.5, float("nan"), float("inf"), "\x1b[2J", "\0", "../a", 1 << 64, True])


@st.composite
def spoiled_values(draw, original):
    """The text of a JSON object in which some values differ, are missing, or are new."""
    values = json.loads(json.dumps(original))
    for _ in range(draw(st.integers(1, 3))):
        place = values
        while isinstance(place, dict) and place:
            key = draw(st.sampled_from(sorted(place)))
            if not isinstance(place[key], dict) or draw(st.booleans()):
                break
            place = place[key]
        if not isinstance(place, dict) or not place:
            place, key = values, next(iter(values), "")
        match draw(st.sampled_from(("change", "remove", "add"))):
            case "change":
                place[key] = draw(st.one_of(VALUES, HARD))
            case "remove":
                place.pop(key, None)
            case "add":
                place[draw(st.text(max_size=8))] = draw(VALUES)
    return json.dumps(values)


def texts(original):
    """Texts that are no JSON, other JSON, or almost `original`."""
    damaged = spoiled([json.dumps(original).encode()]).map(lambda data: data.decode("utf-8", "replace"))
    return st.one_of(st.text(max_size=200), VALUES.map(json.dumps), spoiled_values(original), damaged)


@given(texts(MODEL))
@example(json.dumps(MODEL | {"files": {"two\nlines": ""}}))
@example(json.dumps(MODEL | {"contract": {"two\nlines": ""}}))
@example(json.dumps(MODEL | {"contract": MODEL["contract"] | {"mean": [None, 0.5, 0.5]}}))
@example(json.dumps(MODEL | {"contract": MODEL["contract"] | {"margin": 10**400}}))
@fuzzed
def test_manifests_raise_bundle_errors_only(text):
    manifest = tried(Manifest.from_json, text, BundleError)
    if manifest is None:
        return
    contract = manifest.contract
    for precision in ("fp32", "int8"):
        calibration = contract.calibration(precision)
        calibration.verdict(calibration.score(1.0))
    contract.to_rt_info()
    face_pixels(Image.new("RGB", (40, 30)), (5.0, 5.0, 20.0, 20.0), contract)
    assert f"{contract.architecture} {contract.version} {manifest.name}".isprintable()


GOLDEN_LIST = {
    "format": 1,
    "pictures": ["golden/0.png"],
    "isas": {"native": "AVX2"},
    "logits": {"int8": {"native": [[0.5, -0.5]]}},
    "tolerance": {"int8": {"CPU": 0.01, "GPU": 0.1}},
}


class Steady:
    """A network whose answer is always the same."""

    def logits(self, pixels):
        return np.tile(np.array([0.5, -0.5], np.float32), (len(pixels), 1))


@given(text=texts(GOLDEN_LIST))
@fuzzed
def test_golden_lists_raise_bundle_errors_only(text, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "golden-fuzz"
    (folder / "golden").mkdir(parents=True, exist_ok=True)
    (folder / "golden" / "0.png").write_bytes(encoded("PNG"))
    (folder / "golden" / "golden.json").write_text(text, "utf-8", "surrogatepass")
    files = {name: sha256(folder / name) for name in ("golden/0.png", "golden/golden.json")}
    bundle = Bundle(folder, Manifest(small_contract(), files))
    result = tried(lambda one: check_golden(Steady(), one, "int8"), bundle, BundleError)
    assert result is None or str(result)


PROFILE = {
    "format": 1,
    "device": "CPU",
    "precision": "int8",
    "hint": "LATENCY",
    "streams": 2,
    "fps": 9.5,
    "auc": 0.9,
    "bundle": "0" * 64,
    "made": "2026-01-01",
    "hardware": {"processor": "", "device": "", "driver": "", "isa": ""},
}


@given(texts(PROFILE))
@fuzzed
def test_profiles_raise_value_errors_only(text):
    profile = tried(Profile.from_json, text, ValueError)
    if profile is not None:
        assert str(profile).isprintable()
        profile.properties()


@pytest.mark.parametrize(
    "data", [b"\xff" * 10_000, b"\xff\xd8\xff" * 3000, b"\xff\xd8\xff\xe0\0\0" * 500, b"\0" * 10_000]
)
def test_hostile_streams_are_read_quickly(data, monkeypatch):
    parts = [data] * 50 + [b""]
    monkeypatch.setattr(os, "read", lambda number, size: parts.pop(0))
    (gap,) = StandardInput().frames(threading.Event())
    assert gap.failed
