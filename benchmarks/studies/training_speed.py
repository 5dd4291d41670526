"""Images a second of a training step: the first article's loop as it stands against `train-detector`, in one run.

    python -m benchmarks.studies.training_speed FACES

The same network, batch and pictures, on the CPU, each in a process of its own, in turn. Each makes two passes over the
faces; the second counts. Ours draws all its augmentations meanwhile.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.engines.article import article_training
from benchmarks.engines.pytorch import torch_facts
from edge_runtime.command import run_command
from edge_runtime.errors import UsageError
from train.data.build import Catalog, FaceRecord
from train.data.sample import pick_faces

BATCH = 32
VALID = 8


def measure_article(faces: Catalog, arch: str) -> dict[str, Any]:
    """Train as the article does and return the images a second of the second pass."""
    from train.models.backbones import build_backbone

    records = faces.split("train")
    loop = article_training(build_backbone(arch), [(str(face.path), face.label) for face in records], BATCH)
    next(loop)
    start = time.perf_counter()
    next(loop)
    seconds = time.perf_counter() - start
    return {"images_per_second": len(records) / seconds, "batch": BATCH, **torch_facts()}


def measure_ours(faces: Catalog, arch: str) -> dict[str, Any]:
    """Train as `train-detector` does and return the images a second of the second epoch."""
    from train.choices import Preset, TrainingDevice
    from train.learning.recipes import PRESETS
    from train.learning.trainer import Trainer

    recipe = PRESETS[Preset.DEFAULT].replace(weights="none", epochs=2, batch=BATCH, ramp=0.0)
    with tempfile.TemporaryDirectory() as out:
        trainer = Trainer(faces, arch, recipe, Path(out), workers=1, device=TrainingDevice.CPU)
        trainer.run()
    last = trainer.state.progress.history[-1]
    return {name: last[name] for name in ("images_per_second", "waiting")} | {
        "batch": BATCH,
        "precision": trainer.accelerator.mixed_precision,
        **torch_facts(),
    }


LOOPS = {"article": measure_article, "ours": measure_ours}


def pick(catalog: Catalog, count: int) -> Catalog:
    """Return a catalog of `count` of the training faces, a multiple of BATCH, and a few to judge.

    Raises:
        UsageError: there are too few faces.
    """
    chosen: list[FaceRecord] = []
    for split, wanted in (("train", count), ("valid", VALID)):
        records = catalog.split(split)
        if len(records) < wanted:
            raise UsageError(f"--faces {count}: the {split} split has {len(records)} of {wanted}; give fewer")
        chosen += pick_faces(records, wanted)
    return Catalog(tuple(chosen))


def _child(loop: str, catalog: Path, arch: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.studies.training_speed", str(catalog), "--arch", arch, "--child", loop]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UsageError(f"{loop} could not be measured: {(done.stderr.strip().splitlines() or ['no reason'])[-1]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def training_speed(
    data: Annotated[Path, typer.Argument(help="A catalog.csv, or a folder with real/ and fake/.")],
    arch: Annotated[str, typer.Option(help="The backbone.")] = "resnet50",
    faces: Annotated[int, typer.Option(min=BATCH, help=f"How many; rounded down to batches of {BATCH}.")] = 4 * BATCH,
    rounds: Annotated[int, typer.Option(min=1, help="How often each loop is measured, in turn.")] = 3,
    child: Annotated[str, typer.Option(hidden=True)] = "",
) -> int:
    """Measure how many images a second training takes, against the first article's loop."""
    from train.commands.evaluate import read_data

    if child:
        print(json.dumps(LOOPS[child](Catalog.read(data), arch)))
        return 0
    rates: dict[str, list[float]] = {name: [] for name in LOOPS}
    with tempfile.TemporaryDirectory() as folder:
        catalog = Path(folder) / "catalog.csv"
        pick(read_data(data), faces // BATCH * BATCH).write(catalog)
        for _ in range(rounds):
            for name in LOOPS:
                found = _child(name, catalog, arch)
                print(json.dumps({"loop": name, **found}), flush=True)
                rates[name].append(found["images_per_second"])
    ratios = [ours / theirs for ours, theirs in zip(rates["ours"], rates["article"], strict=True)]
    for name, rate in rates.items():
        print(f"{name}: {statistics.median(rate):.1f} images/s ({min(rate):.1f} to {max(rate):.1f})")
    print(f"ours is {statistics.median(ratios):.2f} times the article's ({min(ratios):.2f} to {max(ratios):.2f})")
    return 0


def main() -> None:
    """Start the command."""
    run_command(training_speed, "python -m benchmarks.studies.training_speed")


if __name__ == "__main__":
    main()
