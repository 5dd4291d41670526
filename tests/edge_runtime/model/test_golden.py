"""Golden pictures tell a device that computes correctly from one that doesn't."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.golden import add_golden
from PIL import Image

from edge_runtime.errors import BundleError, DeviceError
from edge_runtime.model.bundle import Bundle, Manifest
from edge_runtime.model.contract import ModelContract, PixelRecipe
from edge_runtime.model.golden import GOLDEN, Golden, check_golden, kind_of, require_golden

CONTRACT = ModelContract("tiny", input_size=16, pixels=PixelRecipe(resize_to=None))


class Device:
    """Answers with the means of two channels, and errs by `error`."""

    def __init__(self, error: float = 0.0) -> None:
        self.error = error

    def logits(self, pixels: np.ndarray) -> np.ndarray:
        means = pixels.astype(np.float32).mean((1, 2)) / 25.0
        return means[:, :2] + np.array([0.0, self.error], np.float32)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    rng = np.random.default_rng(0)
    pixels = [rng.integers(0, 60 * (index + 1), (16, 16, 3), np.uint8) for index in range(4)]
    answers = [Device().logits(one[None])[0].astype(float).tolist() for one in pixels]
    golden = Golden(
        pictures=[f"golden/{index}.png" for index in range(4)],
        isas={"native": "AVX-512 VNNI", "sse42": "SSE4.2"},
        logits={"int8": {"native": [[real, fake + 0.5] for real, fake in answers], "sse42": answers}},
        tolerance={"int8": {"CPU": 0.01, "GPU": 0.2}},
    )
    (tmp_path / "model.json").write_text(Manifest(CONTRACT, {}).to_json())
    return add_golden(tmp_path, golden, list(map(Image.fromarray, pixels)))


def test_a_right_device_is_recognized(bundle: Bundle) -> None:
    result = check_golden(Device(), bundle, "int8")
    assert (result.right, result.nearest) == (True, "SSE4.2")
    assert result.difference < 1e-6
    assert check_golden(Device(0.5), bundle, "int8").nearest == "AVX-512 VNNI"


def test_a_wrong_device_is_refused(bundle: Bundle) -> None:
    result = check_golden(Device(0.1), bundle, "int8")
    assert not result.right
    assert result.difference == pytest.approx(0.1, abs=1e-4)
    with pytest.raises(DeviceError, match="CPU int8: WRONG"):
        require_golden(Device(0.1), bundle, "int8")


def test_half_precision_may_differ_more(bundle: Bundle) -> None:
    assert check_golden(Device(0.1), bundle, "int8", "GPU.0").right
    assert (kind_of("CPU"), kind_of("GPU.1"), kind_of("NPU")) == ("CPU", "GPU", "GPU")


def test_nan_is_wrong(bundle: Bundle) -> None:
    assert not check_golden(Device(float("nan")), bundle, "int8").right


def test_swapped_channels_are_found(bundle: Bundle) -> None:
    class Swapped(Device):
        def logits(self, pixels: np.ndarray) -> np.ndarray:
            return super().logits(pixels[..., ::-1])

    assert not check_golden(Swapped(), bundle, "int8").right


def test_a_changed_picture_is_refused(bundle: Bundle) -> None:
    Image.new("RGB", (16, 16)).save(bundle.path / "golden/2.png")
    with pytest.raises(BundleError, match=r"golden/2\.png was changed"):
        check_golden(Device(), bundle, "int8")


def test_missing_answers_are_named(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="no golden answers for fp16"):
        check_golden(Device(), bundle, "fp16")
    with pytest.raises(BundleError, match="holds no golden pictures"):
        Golden.of(Bundle(bundle.path, Manifest(CONTRACT, {})))


@pytest.mark.parametrize(
    "change",
    [
        {"format": 99},
        {"pictures": []},
        {"pictures": [3]},
        {"pictures": ["../a.png"]},
        {"logits": {"int8": {"native": [[1.0]]}}},
        {"logits": {"int8": [1.0]}},
        {"logits": {"int8": {"native": [["a", "b"]] * 4}}},
        {"tolerance": {"int8": {"CPU": "0.01 wide"}}},
        {"tolerance": {"int8": {"CPU": -1}}},
        {"isas": 3},
    ],
)
def test_damaged_lists_are_refused(bundle: Bundle, tmp_path: Path, change: dict) -> None:
    import hashlib

    text = json.dumps({**json.loads((tmp_path / GOLDEN).read_text()), **change})
    (tmp_path / GOLDEN).write_text(text)
    files = {**bundle.manifest.files, GOLDEN: hashlib.sha256(text.encode()).hexdigest()}
    with pytest.raises(BundleError):
        check_golden(Device(), Bundle(tmp_path, Manifest(CONTRACT, files)), "int8")
