"""What `train-detector` does, as a function that a notebook could call."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_runtime.errors import UsageError
from train.augment import without
from train.checkpoint import INPUTS
from train.evaluate import checkpoint_logits
from train.judging import read_data
from train.recipes import PRESETS, Recipe
from train.tell import tell_epoch
from train.trainer import Training, finish


@dataclass(frozen=True)
class TrainingOptions:
    """How a training is run, beside its recipe."""

    arch: str = "resnet50"
    preset: str = "default"
    teacher: Path | None = None
    split: str = "70/15/15"
    workers: int | None = None
    precision: str = "auto"
    device: str = "auto"
    max_fpr: float = 0.01
    max_fnr: float = 0.01
    demo: bool = False


def find_recipe(preset: str, changes: Mapping[str, Any], off: str) -> Recipe:
    """Return the recipe called `preset` with `changes` that are not None, and augmentations `off`.

    Raises:
        UsageError: there is no such preset, way to pixels or augmentation.
    """
    if preset not in PRESETS:
        raise UsageError(f"--preset {preset}: unknown; choose one of {', '.join(PRESETS)}")
    recipe = PRESETS[preset].replace(**changes)
    if recipe.pixels not in INPUTS:
        raise UsageError(f"--input {recipe.pixels}: unknown; choose one of {', '.join(INPUTS)}")
    return recipe.replace(chances=without(recipe.chances, off))


def train_detector(data: Path, out: Path, options: TrainingOptions, changes: Mapping[str, Any], off: str = "") -> Path:
    """Train on `data` into folder `out`, calibrate, evaluate, report; return the best checkpoint."""
    recipe = find_recipe(options.preset, changes, off)
    catalog = read_data(data, split=options.split, seed=recipe.seed)
    out = out.expanduser()
    training = Training(
        catalog,
        options.arch,
        recipe,
        out,
        teacher=options.teacher,
        workers=options.workers,
        precision=options.precision,
        demo=options.demo,
        device=options.device,
    )
    best = training.run(tell_epoch)
    if training.accelerator.is_main_process:
        logits = checkpoint_logits(best, catalog.split("valid"))
        finish(best, catalog, logits, max_fpr=options.max_fpr, max_fnr=options.max_fnr)
    return best
