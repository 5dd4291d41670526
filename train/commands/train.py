"""What `train-detector` does, as a function that a notebook could call."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from edge_runtime.errors import UsageError
from edge_runtime.model.contract import CHECKPOINT
from train.commands.console import tell_epoch
from train.commands.evaluate import read_data
from train.data.build import CATALOG, Catalog
from train.data.catalog import SHARES
from train.evaluation.evaluation import Evaluation, Judged, open_subject, summarize
from train.evaluation.logits import checkpoint_logits, require_logits
from train.learning.augment import SWITCHES, without
from train.learning.dataset import FaceDataset
from train.learning.recipes import PRESETS, Recipe
from train.learning.trainer import Training, finish
from train.models.checkpoint import INPUTS
from train.report.evaluation import contact_sheet, write_evaluation
from train.report.html import Picture, Section, Table
from train.report.model_card import write_model_card
from train.report.plots import training_curves


@dataclass(frozen=True)
class TrainingOptions:
    """How a training is run, beside its recipe."""

    arch: str = "resnet50"
    preset: str = "default"
    teacher: Path | None = None
    split: str = SHARES
    workers: int | None = None
    precision: str = "auto"
    device: str = "auto"
    max_fpr: float = 0.01
    max_fnr: float = 0.01
    demo: bool = False
    licence: str = ""
    pictures: bool = True
    bootstrap: int = 1000


AUGMENTATIONS = "augmentations.png"
COLUMNS = 6
KEEP = ("best", "last")


def find_recipe(preset: str, changes: Mapping[str, Any], off: str) -> Recipe:
    """Return the recipe called `preset` with `changes` that are not None, and augmentations `off`.

    Raises:
        UsageError: there is no such preset, way to pixels, augmentation or epoch to keep.
    """
    if preset not in PRESETS:
        raise UsageError(f"--preset {preset}: unknown; choose one of {', '.join(PRESETS)}")
    recipe = PRESETS[preset].replace(**changes)
    if recipe.pixels not in INPUTS:
        raise UsageError(f"--input {recipe.pixels}: unknown; choose one of {', '.join(INPUTS)}")
    if recipe.keep not in KEEP:
        raise UsageError(f"--keep {recipe.keep}: unknown; choose one of {', '.join(KEEP)}")
    return recipe.replace(chances=without(recipe.chances, off))


@dataclass(frozen=True)
class Trained:
    """What came out: the best checkpoint, the catalog it was trained on, its figures on the validation split."""

    best: Path
    catalog: Catalog
    evaluation: Evaluation | None
    """None in a process that is not the main one."""


def train_detector(
    data: Path, out: Path, options: TrainingOptions, changes: Mapping[str, Any], off: str = ""
) -> Trained:
    """Train on `data` into folder `out`, calibrate, evaluate on the validation split, report."""
    recipe = find_recipe(options.preset, changes, off)
    if recipe.staged and options.teacher is None:
        asked = f"--staged {changes['staged']}" if changes.get("staged") else f"--preset {options.preset}"
        raise UsageError(f"{asked}: needs --teacher, the checkpoint whose maps are learnt")
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
    if training.accelerator.is_main_process and options.pictures:
        save_grid(training.dataset, out / AUGMENTATIONS)
    best = training.run(tell_epoch)
    if not training.accelerator.is_main_process:
        return Trained(best, catalog, None)
    history = training.progress.history
    return Trained(best, catalog, conclude(best, catalog, recipe, history, options))


def conclude(
    best: Path, catalog: Catalog, recipe: Recipe, history: Sequence[Mapping[str, Any]], options: TrainingOptions
) -> Evaluation:
    """Calibrate the best checkpoint, evaluate it on the validation split, write report and card beside it."""
    valid = catalog.split("valid")
    logits = checkpoint_logits(best, valid)
    require_logits(valid, logits)
    contract = finish(best, catalog, logits, max_fpr=options.max_fpr, max_fnr=options.max_fnr)
    judged = Judged(valid, logits, contract.calibration(CHECKPOINT))
    data = {"path": str(best.parent / CATALOG), "split": "valid", "left_out": {}}
    alarms = [f"these are the best figures on the validation split, which {recipe.chosen} were chosen on"]
    evaluation = summarize(open_subject(best), judged, data, bootstrap=options.bootstrap, alarms=alarms)
    out = best.parent
    write_evaluation(out, evaluation, judged, pictures=options.pictures, first=training_sections(history, out))
    write_model_card(out / "MODEL_CARD.md", contract, recipe, catalog, evaluation, options.licence)
    return evaluation


def training_sections(history: Sequence[Mapping[str, Any]], out: Path) -> list[Section]:
    """Return the sections of the report that show how training went."""
    names = ["epoch", "train_loss", "valid_loss", "valid_accuracy", "auc", "images_per_second", "waiting"]
    if any("stride" in row for row in history):
        names.insert(1, "stride")
    cells = [[row.get(name, "") for name in names] for row in history]
    rows = [[f"{cell:.3f}" if isinstance(cell, float) else cell for cell in row] for row in cells]
    sections = [Section("Training", [training_curves(history), Table(names, rows)])]
    grid = out / AUGMENTATIONS
    if grid.is_file():
        sections.append(Section("Augmentations", ["One row for each switch.", Picture(grid.read_bytes(), "a grid")]))
    return sections


def save_grid(dataset: FaceDataset, path: Path) -> None:
    """Save a grid of training faces, a row for each augmentation that is switched on, each at full strength."""
    names = [name for name in SWITCHES if dataset.chances.get(name)]
    images = []
    for name in names:
        alone = FaceDataset(dataset.records, dataset.contract, {name: 1.0}, seed=dataset.seed)
        images += [Image.fromarray(alone[index * len(alone.records) // COLUMNS][0].numpy()) for index in range(COLUMNS)]
    if images:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contact_sheet(images, "augmentations", columns=COLUMNS).png)
