"""Golden pictures tell a device that computes the right thing from one that does not."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_runtime.errors import BundleError, DeviceError
from edge_runtime.model.bundle import Bundle, Manifest, sha256
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
    (tmp_path / "golden").mkdir()
    rng, answers = np.random.default_rng(0), []
    for index in range(4):
        pixels = rng.integers(0, 60 * (index + 1), (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"golden/{index}.png")
        answers.append(Device().logits(pixels[None])[0].astype(float).tolist())
    shifted = [[real, fake + 0.5] for real, fake in answers]
    golden = Golden(
        [f"golden/{index}.png" for index in range(4)],
        {"native": "AVX-512 VNNI", "sse42": "SSE4.2"},
        {"int8": {"native": shifted, "sse42": answers}},
        {"int8": {"CPU": 0.01, "GPU": 0.2}},
    )
    (tmp_path / GOLDEN).write_text(golden.to_json())
    return packed(tmp_path)


def packed(folder: Path) -> Bundle:
    files = {path.relative_to(folder).as_posix(): sha256(path) for path in (folder / "golden").iterdir()}
    (folder / "model.json").write_text(Manifest(CONTRACT, files).to_json())
    return Bundle.open(folder)


def test_a_right_device_is_right_and_its_instruction_set_is_recognized(bundle: Bundle) -> None:
    result = check_golden(Device(), bundle, "int8")
    assert result.right
    assert result.nearest == "SSE4.2"
    assert result.difference < 1e-6
    assert check_golden(Device(0.5), bundle, "int8").nearest == "AVX-512 VNNI"


def test_a_wrong_device_is_wrong_and_refused(bundle: Bundle) -> None:
    result = check_golden(Device(0.1), bundle, "int8")
    assert not result.right
    assert result.difference == pytest.approx(0.1, abs=1e-4)
    with pytest.raises(DeviceError, match="CPU int8: WRONG"):
        require_golden(Device(0.1), bundle, "int8")


def test_a_device_of_half_precision_may_differ_more(bundle: Bundle) -> None:
    assert check_golden(Device(0.1), bundle, "int8", "GPU.0").right
    assert (kind_of("CPU"), kind_of("GPU.1"), kind_of("NPU")) == ("CPU", "GPU", "GPU")


def test_answers_that_are_no_numbers_are_wrong(bundle: Bundle) -> None:
    result = check_golden(Device(float("nan")), bundle, "int8")
    assert not result.right


def test_channels_in_the_wrong_order_are_found(bundle: Bundle) -> None:
    class Swapped(Device):
        def logits(self, pixels: np.ndarray) -> np.ndarray:
            return super().logits(pixels[..., ::-1])

    assert not check_golden(Swapped(), bundle, "int8").right


def test_a_changed_picture_or_list_is_refused(bundle: Bundle) -> None:
    Image.new("RGB", (16, 16)).save(bundle.path / "golden/2.png")
    with pytest.raises(BundleError, match=r"golden/2\.png was changed"):
        check_golden(Device(), bundle, "int8")


def test_a_precision_or_a_bundle_without_golden_answers_is_said_to_be_so(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no golden answers for fp16"):
        check_golden(Device(), bundle, "fp16")
    values = json.loads((tmp_path / GOLDEN).read_text())
    (tmp_path / GOLDEN).write_text(json.dumps({**values, "format": 99}))
    with pytest.raises(BundleError, match="another format"):
        Golden.of(packed(tmp_path))
    (tmp_path / GOLDEN).unlink()
    with pytest.raises(BundleError, match="holds no golden pictures"):
        Golden.of(packed(tmp_path))
