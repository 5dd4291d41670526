"""Compares training speed, images/s: the first article's loop as written and `train-detector`.

    python -m benchmarks.studies.training_speed FACES

Both train the same network on the same pictures in the same batches on the CPU, alternating, each in a process of its
own. Of two epochs the second counts. `train-detector` also draws all its augmentations.
"""

import json
import statistics
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.engines.article import article_training
from benchmarks.engines.pytorch import torch_facts
from benchmarks.measure.children import in_process
from benchmarks.measure.plan import picture_files
from edge_runtime.command import run_command
from edge_runtime.errors import UsageError
from export.children.scratch import ScratchFolder
from train.choices import Preset, TrainingDevice
from train.data.build import load_data
from train.data.catalog import Catalog, FaceRecord
from train.data.sample import pick_faces
from train.learning.recipes import PRESETS
from train.learning.trainer import Trainer
from train.models.backbones import build_backbone

BATCH_SIZE = 32
VALIDATION_FACES = 8


def measure_article(faces: Catalog, arch: str) -> dict[str, Any]:
    """Train as the article does and return the images/s of the second epoch."""
    records, scratch = faces.split("train"), ScratchFolder()
    labelled = zip(picture_files(records, scratch.path), (face.label for face in records), strict=True)
    loop = article_training(build_backbone(arch), list(labelled), BATCH_SIZE)
    next(loop)
    start = time.perf_counter()
    next(loop)
    seconds = time.perf_counter() - start
    return {"images_per_second": len(records) / seconds, "batch": BATCH_SIZE, **torch_facts()}


def measure_ours(faces: Catalog, arch: str) -> dict[str, Any]:
    """Train as `train-detector` does and return the images/s of the second epoch."""
    recipe = PRESETS[Preset.DEFAULT].replace(weights="none", epochs=2, batch=BATCH_SIZE, ramp=0.0)
    with ScratchFolder() as out:
        trainer = Trainer(faces, arch, recipe, out, workers=1, device=TrainingDevice.CPU)
        trainer.run()
    last = trainer.state.progress.history[-1]
    return {name: last[name] for name in ("images_per_second", "waiting")} | {
        "batch": BATCH_SIZE,
        "precision": trainer.accelerator.mixed_precision,
        **torch_facts(),
    }


LOOPS = {"article": measure_article, "ours": measure_ours}


def pick(catalog: Catalog, count: int) -> Catalog:
    """Return a catalog of `count` training faces, a multiple of BATCH_SIZE, and a few for validation.

    Raises:
        UsageError: there are too few faces.
    """
    chosen: list[FaceRecord] = []
    for split, wanted in (("train", count), ("valid", VALIDATION_FACES)):
        records = catalog.split(split)
        if len(records) < wanted:
            raise UsageError(f"--faces {count}: the {split} split has only {len(records)} of {wanted}; give fewer")
        chosen += pick_faces(records, wanted)
    return Catalog(tuple(chosen))


def training_speed(
    data: Annotated[Path, typer.Argument(help="A catalog.csv, or a folder with real/ and fake/.")],
    arch: Annotated[str, typer.Option(help="The backbone.")] = "resnet50",
    faces: Annotated[
        int, typer.Option(min=BATCH_SIZE, help=f"Training faces; rounded down to batches of {BATCH_SIZE}.")
    ] = 4 * BATCH_SIZE,
    rounds: Annotated[int, typer.Option(min=1, help="How often each loop is measured, alternating.")] = 3,
) -> int:
    """Compare the training speed of the first article's loop and of train-detector."""
    rates: dict[str, list[float]] = {name: [] for name in LOOPS}
    catalog = pick(load_data(data), faces // BATCH_SIZE * BATCH_SIZE)
    for _ in range(rounds):
        for name, measure in LOOPS.items():
            found = in_process(measure, catalog, arch)
            print(json.dumps({"loop": name, **found}), flush=True)
            rates[name].append(found["images_per_second"])
    ratios = [ours / theirs for ours, theirs in zip(rates["ours"], rates["article"], strict=True)]
    for name, rate in rates.items():
        print(f"{name}: {statistics.median(rate):.1f} images/s ({min(rate):.1f} to {max(rate):.1f})")
    print(f"ours is {statistics.median(ratios):.2f} times the article's ({min(ratios):.2f} to {max(ratios):.2f})")
    return 0


if __name__ == "__main__":
    run_command(training_speed, "python -m benchmarks.studies.training_speed")
