"""A tiny bundle, made on the spot without torch: quick to compile, and its answer follows the picture's colour."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops
from PIL import Image

from edge_runtime.bundle import Bundle, Manifest
from edge_runtime.contract import Calibration, Framing, ModelContract, PixelRecipe

SIZE = 32


def redness_network(size: int = SIZE) -> ov.Model:
    """A network f32 [1, 3, size, size] → [1, 2] whose logit of fake grows with red and falls with blue."""
    pixels = ops.parameter([1, 3, size, size], np.float32, name="pixels")
    kernel = np.zeros((4, 3, 3, 3), np.float32)
    for channel in range(3):
        kernel[channel, channel, 1, 1] = 1.0
    convolved = ops.convolution(pixels, ops.constant(kernel), [2, 2], [1, 1], [1, 1], [1, 1])
    pooled = ops.reduce_mean(convolved, ops.constant(np.array([2, 3])), keep_dims=False)
    weights = np.array([[-2, 0, 2, 0], [2, 0, -2, 0]], np.float32)
    logits = ops.matmul(pooled, ops.constant(weights), False, True)
    return ov.Model([logits], [pixels], "redness")


def write_bundle(folder: Path, contract: ModelContract, precisions: tuple[str, ...] = ("fp32", "int8")) -> Path:
    """Write a bundle with the redness network under every precision."""
    for precision in precisions:
        (folder / precision).mkdir(parents=True)
        ov.save_model(redness_network(contract.input_size), folder / precision / "model.xml", compress_to_fp16=False)
    files = {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.*"))
    }
    (folder / "model.json").write_text(Manifest(contract, files).to_json())
    return folder


def tiny_contract(**changes: object) -> ModelContract:
    """The contract of the redness network."""
    calibration = Calibration(temperature=1.0, low=0.3, high=0.7, fitted=True)
    contract = ModelContract(
        "redness",
        version="1.4.0",
        input_size=SIZE,
        framing=Framing.WHOLE,
        pixels=PixelRecipe(resize_to=SIZE),
        calibrations={"fp32": calibration, "int8": calibration},
    )
    return contract.replace(**changes)


@pytest.fixture(scope="session")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny bundle."""
    return write_bundle(tmp_path_factory.mktemp("bundle") / "detector", tiny_contract())


@pytest.fixture(scope="session")
def demo_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny bundle of a demonstration model."""
    return write_bundle(tmp_path_factory.mktemp("demo") / "detector", tiny_contract(demo=True))


@pytest.fixture(scope="session")
def bundle(bundle_path: Path) -> Bundle:
    """The tiny bundle, opened."""
    return Bundle.open(bundle_path)


def colour_picture(red: int, blue: int, size: tuple[int, int] = (64, 64), noise: int = 20) -> Image.Image:
    """A noisy picture of one colour, so that it counts neither as dark nor as blurred."""
    random = np.random.default_rng(red * 256 + blue)
    pixels = np.empty((size[1], size[0], 3), np.int16)
    pixels[:] = (red, 120, blue)
    pixels += random.integers(-noise, noise + 1, pixels.shape, dtype=np.int16)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="session")
def red() -> Image.Image:
    """A picture that the tiny model calls fake."""
    return colour_picture(230, 30)


@pytest.fixture(scope="session")
def blue() -> Image.Image:
    """A picture that the tiny model calls real."""
    return colour_picture(30, 230)


@pytest.fixture(scope="session")
def grey() -> Image.Image:
    """A picture that the tiny model is uncertain of."""
    return colour_picture(135, 122)


@pytest.fixture(scope="session")
def picture_of_colour() -> Callable[..., Image.Image]:
    """Makes a noisy picture of one colour: red, blue, size=(width, height), noise=."""
    return colour_picture


@pytest.fixture(scope="session")
def make_bundle() -> Callable[..., Path]:
    """Writes a tiny bundle into a folder: folder, contract changes by name, precisions=."""

    def make(folder: Path, precisions: tuple[str, ...] = ("fp32", "int8"), **changes: object) -> Path:
        return write_bundle(folder, tiny_contract(**changes), precisions)

    return make


@pytest.fixture(autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep caches and profiles of this machine out of the tests, and theirs out of it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / "state"))
    for variable in ("DEEPFAKE_EDGE_MODEL", "STATE_DIRECTORY", "CACHE_DIRECTORY", "NOTIFY_SOCKET"):
        monkeypatch.delenv(variable, raising=False)
