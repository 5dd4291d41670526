"""Small faces and networks for the tests of training."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from edge_runtime.model.contract import ModelContract
from train.models.checkpoint import INPUTS, save_checkpoint

if TYPE_CHECKING:
    from train.models.backbones import Backbone


def _draw(seed: int, size: tuple[int, int] = (64, 64), *, fake: bool = False) -> Image.Image:
    """Draw soft blobs; a fake has a fine grid laid over them."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(40, 215, (14, 14, 3), dtype=np.uint8))
    pixels = np.asarray(small.resize(size, Image.Resampling.BICUBIC), dtype=np.int16)
    pixels = pixels + random.integers(-6, 7, pixels.shape)
    if fake:
        pixels[::2, ::2] += 24
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _fill(root: Path, count: int = 12, size: tuple[int, int] = (64, 64), first: int = 0) -> Path:
    """Write `count` real and as many fake pictures below `root`."""
    for label, name in enumerate(("real", "fake")):
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(count):
            seed = first + 1000 * label + index
            _draw(seed, size, fake=bool(label)).save(folder / f"{index:03d}.png")
    return root


@pytest.fixture(scope="session")
def draw() -> Callable[..., Image.Image]:
    """Draw a picture of its own for each seed."""
    return _draw


@pytest.fixture(scope="session")
def fill() -> Callable[..., Path]:
    """Write real and fake pictures below a folder."""
    return _fill


@pytest.fixture
def make_faces(tmp_path: Path) -> Callable[..., Path]:
    """Make a folder with real/ and fake/."""

    def make(name: str = "faces", **options: object) -> Path:
        return _fill(tmp_path / name, **options)  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 real and 24 fake pictures of 64×64; not to be changed."""
    return _fill(tmp_path_factory.mktemp("session") / "faces", 24)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained resnet18 of 32 pixels a side, as a checkpoint of ours."""
    import torch

    from train.models.backbones import build_backbone

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.pth"
    save_checkpoint(path, build_backbone("resnet18"), ModelContract("resnet18", input_size=32, pixels=INPUTS["native"]))
    return path


@pytest.fixture(scope="session")
def tiny_backbone() -> Iterator["Backbone"]:
    """The tiny network as a backbone of the registry."""
    from helpers.networks import tiny_registered

    with tiny_registered() as backbone:
        yield backbone


@pytest.fixture(scope="session")
def tiny_teacher(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: "Backbone") -> Path:
    """An untrained tiny network, as a checkpoint to learn from."""
    import torch

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("teacher") / "teacher.pth"
    contract = ModelContract("tiny", input_size=tiny_backbone.input_size, pixels=INPUTS["native"])
    save_checkpoint(path, tiny_backbone.build(2), contract)
    return path


@pytest.fixture(autouse=True)
def _own_accelerator() -> Iterator[None]:
    """Accelerate keeps the first training's precision for the whole process, also that of a test elsewhere."""
    if "accelerate.state" in sys.modules:
        sys.modules["accelerate.state"].AcceleratorState._reset_state()
    yield
    if "accelerate.state" in sys.modules:
        sys.modules["accelerate.state"].AcceleratorState._reset_state()
