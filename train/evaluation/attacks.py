"""Rows of the robustness grid that need a network: adversarial pictures, and fakes whose traces are washed out."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch.nn import functional

from edge_runtime.errors import PictureError
from edge_runtime.model.contract import ModelContract
from edge_runtime.pixels.preprocess import face_pixels
from train.data.catalog import SEED, Catalog, FaceRecord
from train.evaluation.evaluation import JudgedFaces, Subject, judge_faces
from train.evaluation.logits import Corrupt, Logits, adjust
from train.evaluation.robustness import robustness_row
from train.models.checkpoint import load_checkpoint, load_model
from train.models.network import normalize

STRENGTHS = (1, 4)
"""Largest change of a pixel, in grey levels of 255."""

PGD_STEPS = 10
BATCH = 16

Attack = Callable[[nn.Module, torch.Tensor, torch.Tensor, float], torch.Tensor]
"""From network, pixels in [0, 1], labels and strength in [0, 1] to changed pixels."""


def attack_rows(
    subject: Subject, catalog: Catalog, faces: Sequence[FaceRecord], bootstrap: int
) -> list[dict[str, Any]]:
    """Return rows for adversarial pictures and for washed fakes.

    `subject` is a checkpoint, since a bundle has no gradients; `faces` can all be read. The autoencoder that washes
    fakes is trained on the real faces of the training split.
    """
    rows = []
    for name, attack in ATTACKS.items():
        for levels in STRENGTHS:
            logits = attacked_logits(subject.path, faces, attack, levels)
            logits = adjust(logits, faces, subject.contract, subject.calibration)
            judged = JudgedFaces(tuple(faces), logits, subject.calibration)
            rows.append(robustness_row(f"{name} {levels}/255", judged, bootstrap))
    washer = train_washer([face for face in catalog.split("train") if face.label == 0])
    if washer:
        judged = judge_faces(subject, faces, corrupt=wash_fakes(washer))
        rows.append(robustness_row("fakes through an autoencoder", judged, bootstrap))
    return rows


def fgsm(network: nn.Module, pixels: torch.Tensor, labels: torch.Tensor, strength: float) -> torch.Tensor:
    """Take one step of `strength` up the loss (Goodfellow et al. 2015)."""
    return _ascend(network, pixels, pixels, labels, strength, strength)


def pgd(network: nn.Module, pixels: torch.Tensor, labels: torch.Tensor, strength: float) -> torch.Tensor:
    """Take PGD_STEPS small steps up the loss, within `strength` of the picture (Madry et al. 2018)."""
    changed = pixels
    for _ in range(PGD_STEPS):
        changed = _ascend(network, changed, pixels, labels, 2.5 * strength / PGD_STEPS, strength)
    return changed


ATTACKS: dict[str, Attack] = {"FGSM": fgsm, "PGD": pgd}


def _ascend(
    network: nn.Module,
    pixels: torch.Tensor,
    origin: torch.Tensor,
    labels: torch.Tensor,
    step: float,
    strength: float,
) -> torch.Tensor:
    """Move every pixel by `step` up the loss, within `strength` of `origin`."""
    pixels = pixels.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(functional.cross_entropy(network(pixels), labels), pixels)
    moved = pixels.detach() + step * gradient.sign()
    return torch.clamp(torch.clamp(moved, origin - strength, origin + strength), 0.0, 1.0)


class _FromPixels(nn.Module):
    """The network as a function of pixels [N, H, W, 3] in [0, 1]."""

    def __init__(self, network: nn.Module, contract: ModelContract) -> None:
        super().__init__()
        self.network, self.contract = network, contract

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(normalize(255.0 * pixels, self.contract))
        return logits


def attacked_logits(path: Path, faces: Sequence[FaceRecord], attack: Attack, levels: int) -> Logits:
    """Return the logits [N, 2] of a checkpoint on `faces` after an attack of up to `levels` grey levels of 255."""
    checkpoint = load_checkpoint(path)
    network = _FromPixels(load_model(checkpoint).requires_grad_(False), checkpoint.contract)
    rows = []
    for start in range(0, len(faces), BATCH):
        batch = faces[start : start + BATCH]
        crops = [face_pixels(face.read(), face.box, checkpoint.contract) for face in batch]
        pixels = torch.from_numpy(np.concatenate(crops)).float() / 255.0
        labels = torch.tensor([face.label for face in batch]).repeat_interleave(crops[0].shape[0])
        changed = attack(network, pixels, labels, levels / 255.0)
        # Round to whole grey levels: an attack must survive being saved as a picture.
        with torch.inference_mode():
            rows.append(network((changed * 255.0).round() / 255.0).view(len(batch), -1, 2).mean(1).numpy())
    result: Logits = np.concatenate(rows)
    return result


class Washer(nn.Module):
    """A small autoencoder: pictures [N, 3, H, W] in [0, 1], H and W multiples of 4, through H/4 × W/4."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, width, 4, 2, 1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 4, 2, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(2 * width, width, 4, 2, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(width, 3, 4, 2, 1),
        )

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Return the reconstructed pictures."""
        washed: torch.Tensor = self.layers(pictures)
        return washed


def train_washer(reals: Sequence[FaceRecord], *, steps: int = 400, side: int = 96, seed: int = SEED) -> Washer | None:
    """Train an autoencoder on photographs alone, so that its output looks like a photograph.

    GANprintR (Neves et al. 2020) removes a generator's fingerprint in this way. Unreadable pictures are skipped; None
    if none is left.
    """
    torch.manual_seed(seed)
    washer, random = Washer(), np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(washer.parameters(), 2e-3)
    trained = False
    for _ in range(steps if reals else 0):
        crops = []
        for index in random.integers(len(reals), size=8):
            with suppress(PictureError):
                crops.append(_random_crop(reals[index].read(), side, random))
        if not crops:
            continue
        target = torch.stack(crops)
        loss = functional.l1_loss(washer(target), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        trained = True
    return washer.eval() if trained else None


def _random_crop(picture: Image.Image, side: int, random: np.random.Generator) -> torch.Tensor:
    if min(picture.size) < side:
        picture = picture.resize((side, side))
    left, top = (int(random.integers(edge - side + 1)) for edge in picture.size)
    return _tensor(picture.crop((left, top, left + side, top + side)))


def _tensor(picture: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255.0).permute(2, 0, 1)


def wash_fakes(washer: Washer) -> Corrupt:
    """Return a change that passes fakes through `washer` and leaves photographs as they are."""

    def wash(picture: Image.Image, face: FaceRecord) -> Image.Image:
        if face.label == 0:
            return picture
        width, height = (-(-edge // 4) * 4 for edge in picture.size)
        padded = picture if picture.size == (width, height) else picture.resize((width, height))
        with torch.inference_mode():
            washed = washer(_tensor(padded)[None])[0].clamp(0, 1).permute(1, 2, 0).numpy()
        pixels: NDArray[np.uint8] = (washed * 255.0 + 0.5).astype(np.uint8)
        return Image.fromarray(pixels).resize(picture.size) if padded is not picture else Image.fromarray(pixels)

    return wash
