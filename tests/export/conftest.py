"""A tiny network that tells reddish pictures from others, and its bundle: a whole export in seconds."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.networks import SIDE, tiny_registered
from helpers.sharing import made_once
from PIL import Image
from torch import nn

from edge_runtime.model.bundle import Bundle
from edge_runtime.model.contract import CHECKPOINT, Calibration, ModelContract, PixelRecipe
from export.export import export_bundle
from export.int8.quantize import Int8Candidate
from export.options import ExportOptions
from train.data.build import load_data
from train.data.catalog import Catalog
from train.models.backbones import Backbone
from train.models.checkpoint import save_checkpoint
from train.models.network import normalize

CONTRACT = ModelContract(
    "tiny",
    version="0.1.0",
    input_size=SIDE,
    pixels=PixelRecipe(resize_to=None),
    calibrations={CHECKPOINT: Calibration(max_fpr=0.04, max_fnr=0.2)},
)
QUICK = ExportOptions(
    candidates=(Int8Candidate(),),
    fallbacks=(),
    calibration_faces=40,
    measured_faces=40,
    parity_faces=20,
    accuracy_control=False,
)


@pytest.fixture(scope="session")
def quick() -> ExportOptions:
    """ExportOptions of an export that takes seconds."""
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
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with real/ and fake/ pictures, 60 of each."""

    def draw(folder: Path) -> None:
        for label, name in enumerate(("real", "fake")):
            (folder / name).mkdir(parents=True)
            for index in range(60):
                Image.fromarray(picture(200 * label + index, label)).save(folder / name / f"{index:02d}.png")

    return made_once(tmp_path_factory, "tiny_data", draw)


@pytest.fixture(scope="session")
def trained_faces(tiny_data: Path) -> Catalog:
    """Ten faces of `tiny_data` that the checkpoint says it was trained on."""
    return Catalog(load_data(tiny_data).split("train")[:10])


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_model: nn.Module, trained_faces: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the tiny network."""
    folder = tmp_path_factory.mktemp("checkpoint")
    trained_faces.write(folder / "catalog.csv")
    names = {"sources": ["drawn"], "generators": ["pencil"]}
    save_checkpoint(folder / "tiny.pth", tiny_model, CONTRACT, catalog=str(folder / "catalog.csv"), trained_on=names)
    return folder / "tiny.pth"


@pytest.fixture(scope="session")
def tiny_bundle(tiny_checkpoint: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The tiny network's bundle with everything in it."""

    def export(folder: Path) -> None:
        export_bundle(tiny_checkpoint, tiny_data, folder, options=QUICK)

    return Bundle.open(made_once(tmp_path_factory, "tiny_bundle", export))
