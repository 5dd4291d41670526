"""Checks that saliency maps mean something: the hottest quarter of a face must matter more than random ones.

python -m benchmarks.studies.saliency_meaning BUNDLE --data FACES
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image

from edge_runtime.command import run_command
from edge_runtime.inference.classifier import compile_network
from edge_runtime.inference.core import openvino_core
from edge_runtime.model.bundle import Bundle
from edge_runtime.model.contract import Precision
from edge_runtime.pixels.preprocess import face_pixels
from export.convert.saliency import LOGITS, SALIENCY
from export.faces import choose_faces
from train.data.catalog import SEED

Network = Callable[[NDArray[np.uint8]], tuple[NDArray[np.float32], NDArray[np.float32]]]
"""From a crop uint8 [H, W, 3] to logits [2] and saliency maps [2, h, w]."""

QUARTER = 0.25
CHANCES = 4
"""Random quarters per face."""

RESAMPLED = 2000
"""Bootstrap samples behind the interval."""


@dataclass(frozen=True)
class Meaning:
    """Mean drop of the verdict's score over faces, and the 95 % interval of the difference."""

    hottest: float
    random: float
    low: float
    high: float


def saliency_meaning(
    bundle: Annotated[Path, typer.Argument(help="A bundle whose networks give saliency maps.", show_default=False)],
    data: Annotated[Path, typer.Option(help="Catalog, or folder with real/ and fake/.", show_default=False)],
    precision: Annotated[Precision, typer.Option(help="Which network.")] = Precision.INT8,
    faces: Annotated[int, typer.Option(min=2, help="Number of faces of the validation split.")] = 100,
    seed: Annotated[int, typer.Option(help="Seed for choosing faces and random quarters.")] = SEED,
) -> int:
    """Mask the hottest quarter of faces and random quarters; exit code 1 if the hottest does not change more."""
    opened = Bundle.open(bundle)
    contract = opened.contract
    request = compile_network(openvino_core(), opened.model(precision), contract).create_infer_request()

    def network(crop: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        found = request.infer([crop[None]])
        return found[LOGITS][0].copy(), found[SALIENCY][0].copy()

    chosen = choose_faces(data, calibration=2, measured=faces, seed=seed).measured
    generator, found = np.random.default_rng(seed), []
    for face in chosen:
        crop = face_pixels(face.read(), face.box, contract)[0]
        found.append(score_drops(network, crop, generator))
    meaning = judge_drops(np.array(found), seed)
    print(
        f"{contract.architecture} {precision.value}, {len(chosen)} faces: masking the hottest quarter takes "
        f"{meaning.hottest:.3f} off the verdict's score, a random quarter {meaning.random:.3f}; difference "
        f"{meaning.hottest - meaning.random:.3f} ({meaning.low:.3f} to {meaning.high:.3f})"
    )
    return int(meaning.low <= 0)


def score_drops(network: Network, crop: NDArray[np.uint8], generator: np.random.Generator) -> tuple[float, float]:
    """Return how far the verdict's score falls with the hottest quarter masked, and with random quarters masked."""
    logits, maps = network(crop)
    verdict = int(logits.argmax())

    def drop(heat: NDArray[np.floating]) -> float:
        return _score(logits, verdict) - _score(network(masked(crop, heat))[0], verdict)

    shape = maps[verdict].shape
    return drop(maps[verdict]), float(np.mean([drop(generator.random(shape)) for _ in range(CHANCES)]))


def masked(crop: NDArray[np.uint8], heat: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Return the crop, uint8 [H, W, 3], with its hottest quarter painted in its mean colour."""
    places = heat >= np.quantile(heat, 1.0 - QUARTER)
    size = (crop.shape[1], crop.shape[0])
    mask = np.asarray(Image.fromarray(places).resize(size, Image.Resampling.NEAREST))
    return np.where(mask[..., None], crop.mean((0, 1)), crop).astype(np.uint8)


def _score(logits: NDArray[np.float32], label: int) -> float:
    return float(1.0 / (1.0 + np.exp(logits[1 - label] - logits[label])))


def judge_drops(drops: NDArray[np.float64], seed: int) -> Meaning:
    """Return the means of drops [N, 2], and the bootstrap interval of their difference."""
    difference = drops[:, 0] - drops[:, 1]
    draws = np.random.default_rng(seed).integers(0, len(drops), (RESAMPLED, len(drops)))
    low, high = np.quantile(difference[draws].mean(1), (0.025, 0.975))
    hottest, random = drops.mean(0)
    return Meaning(hottest=float(hottest), random=float(random), low=float(low), high=float(high))


if __name__ == "__main__":
    run_command(saliency_meaning, "python -m benchmarks.studies.saliency_meaning")
