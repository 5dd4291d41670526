"""A tiny network that tells tinted pictures from plain ones, and its bundle: the whole way in seconds."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.networks import SIDE, tiny_registered
from PIL import Image
from torch import nn

from edge_runtime.model.bundle import Bundle
from edge_runtime.model.contract import ModelContract, PixelRecipe
from export.export import Options, export_bundle
from export.int8.quantize import Candidate
from train.models.backbones import Backbone
from train.models.checkpoint import save_checkpoint
from train.models.network import normalize

CONTRACT = ModelContract("tiny", version="0.1.0", input_size=SIDE, pixels=PixelRecipe(resize_to=None))
QUICK = Options(
    candidates=(Candidate(),),
    fallbacks=(),
    calibration_faces=40,
    measured_faces=60,
    parity_faces=20,
    accuracy_control=False,
)


@pytest.fixture(scope="session")
def quick() -> Options:
    """Options of an export that takes seconds."""
    return QUICK


def picture(seed: int, label: int, side: int = SIDE + 8) -> np.ndarray:
    """Noise in large patches; a fake one is redder."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 200, (6, 6, 3), np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    pixels = np.asarray(coarse).astype(np.int32) + rng.integers(0, 12, (side, side, 3))
    pixels[..., 0] += 45 * label
    return pixels.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def tiny_backbone() -> Iterator[Backbone]:
    """The tiny network as a backbone of the registry."""
    with tiny_registered() as backbone:
        yield backbone


@pytest.fixture(scope="session")
def tiny_model(tiny_backbone: Backbone) -> nn.Module:
    """The tiny network, trained to tell the two."""
    torch.manual_seed(0)
    labels = torch.arange(64) % 2
    pixels = np.stack([picture(1000 + seed, int(label), SIDE) for seed, label in enumerate(labels)])
    images = normalize(torch.from_numpy(pixels), CONTRACT)
    model = tiny_backbone.build(2).train()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(60):
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_model: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the tiny network."""
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.pth"
    save_checkpoint(path, tiny_model, CONTRACT)
    return path


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with real/ and fake/ pictures, 60 of each."""
    folder = tmp_path_factory.mktemp("data")
    for label, name in enumerate(("real", "fake")):
        (folder / name).mkdir()
        for index in range(60):
            Image.fromarray(picture(200 * label + index, label)).save(folder / name / f"{index:02d}.png")
    return folder


@pytest.fixture(scope="session")
def tiny_bundle(tiny_checkpoint: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The tiny network's bundle with everything in it."""
    return export_bundle(tiny_checkpoint, tiny_data, tmp_path_factory.mktemp("export") / "bundle", options=QUICK)
