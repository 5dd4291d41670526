"""Small autoencoders. What they reconstruct carries the traces of a generator's last layers and little else."""

from collections.abc import Sequence
from enum import Enum
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch.nn import functional

from edge_runtime.atomic import atomic_write
from train.data.catalog import FaceRecord
from train.data.degrade import KERNELS
from train.evaluation.logits import read_again
from train.models.network import keep_memory
from train.parallel import Advance, ordered_map, progress_bar

STEPS, BATCH, SIDE = 600, 16, 96
"""Training steps, faces per step, and pixels a side of the parts it trains on."""

CROPS, CROP = 1500, 160
"""At most this many photographs are learned from, each cropped to this many pixels a side."""

LATENT_NOISE = 0.1
"""Standard deviation of the noise on the latents in training, relative to theirs."""

SPECTRUM = 0.02
"""Weight of the log amplitudes: an L1 loss alone gives blurred pictures."""

ENLARGED = (1.1, 1.6)
"""Half of the pictures are reconstructed this much larger and reduced again, as generated ones usually are."""

PAD = 8
"""Padding in pixels a side, to hide the border effects of convolutions; a multiple of each factor."""


class Upsampling(str, Enum):
    """How a decoder enlarges, which decides the traces it leaves."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"
    TRANSPOSED = "transposed"
    SHUFFLE = "shuffle"


LATENTS = {
    Upsampling.NEAREST: (8, 32),
    Upsampling.BILINEAR: (8, 32),
    Upsampling.TRANSPOSED: (4, 6),
    Upsampling.SHUFFLE: (4, 8),
}
"""Factor by which the sides shrink, and channels: 6 to 8 times fewer numbers than the picture has."""


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.SiLU(), nn.Conv2d(width, width, 3, padding=1), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1)
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        changed: torch.Tensor = self.layers(maps)
        return maps + changed


def _enlarge(kind: Upsampling, before: int, after: int) -> nn.Module:
    """Return a layer from maps of width `before` to maps of width `after`, twice as large."""
    if kind is Upsampling.TRANSPOSED:
        return nn.ConvTranspose2d(before, after, 4, 2, 1)
    if kind is Upsampling.SHUFFLE:
        return nn.Sequential(nn.Conv2d(before, 4 * after, 3, padding=1), nn.PixelShuffle(2))
    return nn.Sequential(nn.Upsample(scale_factor=2, mode=kind.value), nn.Conv2d(before, after, 3, padding=1))


class Autoencoder(nn.Module):
    """From pictures [N, 3, H, W] in [-1, 1] to their reconstructions; H and W are multiples of 8."""

    def __init__(self, kind: Upsampling) -> None:
        super().__init__()
        factor, latents = LATENTS[kind]
        widths = (16, 40, 64, 96)[: factor.bit_length()]
        pairs = list(pairwise(widths))
        encoder: list[nn.Module] = [nn.PixelUnshuffle(2), nn.Conv2d(12, widths[1], 3, padding=1)]
        for before, after in pairs[1:]:
            encoder += [nn.SiLU(), nn.Conv2d(before, after, 3, 2, 1)]
        encoder += [_Residual(widths[-1]), nn.SiLU(), nn.Conv2d(widths[-1], latents, 3, padding=1)]
        decoder: list[nn.Module] = [nn.Conv2d(latents, widths[-1], 3, padding=1)]
        decoder += [_Residual(widths[-1]), _Residual(widths[-1])]
        for after, before in reversed(pairs):
            decoder += [nn.SiLU(), _enlarge(kind, before, after)]
        self.encoder = nn.Sequential(*encoder)
        self.decoder = nn.Sequential(*decoder, nn.SiLU(), nn.Conv2d(widths[0], 3, 3, padding=1))

    def forward(
        self, pictures: torch.Tensor, noise: float = 0.0, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """Return the reconstructions after noise on the latents, of `noise` times their standard deviation."""
        latents = self.encoder(pictures)
        drawn = torch.randn(latents.shape, generator=generator).to(latents)
        restored: torch.Tensor = self.decoder(latents + noise * latents.std().detach() * drawn)
        return restored


def train_autoencoders(
    reals: Sequence[FaceRecord], folder: Path, device: str, *, seed: int, steps: int = STEPS
) -> list[Autoencoder]:
    """Return an autoencoder of each kind, trained on `reals` and kept in `folder`; those kept there are loaded."""
    crops = np.empty(0, np.uint8)
    networks = []
    with progress_bar("training autoencoders", steps * len(Upsampling)) as advance:
        for kind in Upsampling:
            path = folder / f"{kind.value}.pt"
            if path.exists():
                network = Autoencoder(kind).eval()
                network.load_state_dict(torch.load(path, weights_only=True))
                networks.append(network.to(device, memory_format=torch.channels_last))  # type: ignore[call-overload]
                advance(steps)
                continue
            crops = crops if crops.size else _crops(reals, seed)
            networks.append(train_autoencoder(kind, crops, device, seed=seed, steps=steps, advance=advance))
            with atomic_write(path, "wb") as file:
                torch.save(networks[-1].state_dict(), file)
    return networks


def _crops(reals: Sequence[FaceRecord], seed: int) -> NDArray[np.uint8]:
    """Return a part [CROP, CROP, 3] of each of at most CROPS faces, at native resolution."""
    random = np.random.default_rng(seed)

    def crop(chosen: tuple[FaceRecord, NDArray[np.float64]]) -> NDArray[np.uint8]:
        face, place = chosen
        picture = read_again(face)
        if min(picture.size) < CROP:
            return np.asarray(picture.resize((CROP, CROP), Image.Resampling.BICUBIC))
        box = np.array(face.box or (0, 0, *picture.size))
        centre = box[:2] + place * (box[2:] - box[:2])
        left, top = (centre - CROP / 2).clip(0, np.array(picture.size) - CROP).astype(int).tolist()
        return np.asarray(picture.crop((left, top, left + CROP, top + CROP)))

    picked = [reals[index] for index in random.permutation(len(reals))[:CROPS]]
    return np.stack(list(ordered_map(crop, zip(picked, random.random((len(picked), 2)), strict=True))))


def train_autoencoder(
    kind: Upsampling, crops: NDArray[np.uint8], device: str, *, seed: int, steps: int = STEPS, advance: Advance
) -> Autoencoder:
    """Train on random parts of `crops` [N, H, W, 3], whose sides are at least SIDE."""
    if device == "cpu":
        keep_memory()
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    network = Autoencoder(kind).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps + 1, pct_start=0.1)
    for _ in range(steps):
        pictures = _tensor(np.stack([_part(crops[index], random) for index in random.integers(len(crops), size=BATCH)]))
        target = pictures.to(device)
        with _autocast(device):
            restored = network(target, LATENT_NOISE)
        loss = _difference(restored.float(), target)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        advance(1)
    return network.eval()


def reconstruct(network: Autoencoder, picture: Image.Image, random: np.random.Generator) -> NDArray[np.float32]:
    """Return `picture` after the autoencoder, float32 [H, W, 3] in [0, 255]."""
    scale = 1.0 if random.random() < 0.5 else float(random.uniform(*ENLARGED))
    width, height = (round(side * scale) for side in picture.size)
    shown = picture if scale == 1.0 else picture.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (PAD + int(random.integers(PAD)) for _ in range(2))  # Upsampling's grid begins anywhere.
    right, bottom = (3 * PAD - (before + side) % PAD for before, side in ((left, width), (top, height)))
    padded = np.pad(np.asarray(shown), ((top, bottom), (left, right), (0, 0)), mode="symmetric")
    device = next(network.parameters()).device
    generator = torch.Generator().manual_seed(int(random.integers(2**31)))
    with torch.inference_mode(), _autocast(device.type):
        restored = network(_tensor(padded[None]).to(device), 2 * LATENT_NOISE * float(random.random()), generator)
    pixels = 127.5 * (restored[0].float().permute(1, 2, 0).cpu().numpy() + 1.0)
    pixels = pixels[top : top + height, left : left + width].clip(0.0, 255.0)
    if scale == 1.0:
        return pixels
    reduced = Image.fromarray((pixels + 0.5).astype(np.uint8)).resize(picture.size, random.choice(KERNELS[1:]))
    return np.asarray(reduced, dtype=np.float32)


def _autocast(device: str) -> torch.autocast:
    """Compute in bf16 where the device has it."""
    if device == "cpu":
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    else:
        native = torch.cuda.is_bf16_supported()
    return torch.autocast(device, torch.bfloat16, enabled=native)


def _part(crop: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    top, left = (int(random.integers(side - SIDE + 1)) for side in crop.shape[:2])
    part = crop[top : top + SIDE, left : left + SIDE]
    return part[:, ::-1] if random.random() < 0.5 else part


def _tensor(pixels: NDArray[np.uint8]) -> torch.Tensor:
    """Return pixels uint8 [N, H, W, 3] as float32 [N, 3, H, W] in [-1, 1], channels last."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def _difference(restored: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """L1 of the pictures, of their finest details, and of the logarithms of their amplitudes."""

    def fine(pictures: torch.Tensor) -> torch.Tensor:
        return pictures - functional.avg_pool2d(pictures, 3, 1, 1)

    def amplitudes(pictures: torch.Tensor) -> torch.Tensor:
        return torch.log(torch.fft.rfft2(pictures, norm="ortho").abs() + 0.01)

    loss = functional.l1_loss(restored, target) + functional.l1_loss(fine(restored), fine(target))
    return loss + SPECTRUM * functional.l1_loss(amplitudes(restored), amplitudes(target))
