"""What `train-detector` does, as functions that a notebook could call."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from scipy.special import expit

from edge_runtime.atomic import write_atomic
from edge_runtime.errors import UsageError
from edge_runtime.model.contract import CHECKPOINT, ModelContract
from edge_runtime.run import counted
from train.choices import Preset, StepPrecision, TrainingDevice
from train.commands.console import tell_epoch, tell_plan, tell_self_made
from train.commands.output import full_disk_reported, output_folder
from train.data.build import load_data
from train.data.catalog import CATALOG, SHARES, Catalog, FaceRecord
from train.data.sample import pick_faces
from train.data.splits import group_faces
from train.distributed import lost_peers_reported
from train.evaluation.calibrate import GradedFaces, fit_by_quality, log_odds
from train.evaluation.evaluation import Evaluation, JudgedFaces, open_subject, summarize
from train.evaluation.logits import Logits, adjust, checkpoint_logits, face_qualities, require_logits
from train.evaluation.metrics import measure
from train.evaluation.robustness import DAMAGES, random_condition
from train.learning.augment import SWITCHES, without
from train.learning.dataset import FaceDataset
from train.learning.recipes import PRESETS, Recipe
from train.learning.session import training_contract
from train.learning.trainer import Trainer
from train.models.checkpoint import load_checkpoint, load_model, save_checkpoint
from train.parallel import progress_bar
from train.report.evaluation import contact_sheet, write_evaluation
from train.report.html import Picture, Section, Table
from train.report.model_card import write_model_card
from train.report.plots import training_curves
from train.self_made.fakes import SELF_BLENDED, SELF_MADE, add_fakes

AUGMENTATIONS = "augmentations.png"
COPIED = 400
"""Validation faces whose damaged copies the thresholds are fitted to, at most."""

COLUMNS = 6
"""Faces in a row of the augmentation sheet."""

HEADS = {
    "epoch": "epoch",
    "stride": "map learned (stride in pixels)",
    "train_loss": "training loss",
    "valid_loss": "validation loss",
    "valid_accuracy": "validation accuracy",
    "auc": "validation AUC",
    "images_per_second": "images/s",
    "waiting": "share of time waiting for pictures",
}
"""The columns of the report's table of epochs, by the figure they show."""


@dataclass(frozen=True)
class TrainingOptions:
    """How a training is run, apart from its recipe."""

    arch: str = "resnet50"
    preset: Preset = Preset.DEFAULT
    teacher: Path | None = None
    split: str = SHARES
    leave_out: Sequence[str] = ()
    self_made: bool = False
    self_blended: bool = False
    workers: int | None = None
    precision: StepPrecision = StepPrecision.AUTO
    device: TrainingDevice = TrainingDevice.AUTO
    max_fpr: float = 0.01
    max_fnr: float = 0.01
    demo: bool = False
    licence: str = ""
    pictures: bool = True
    bootstrap: int = 1000


@dataclass(frozen=True)
class Trained:
    """The best checkpoint, its catalog and, in the main process, its figures on the validation split."""

    best: Path
    catalog: Catalog
    evaluation: Evaluation | None


def train_detector(
    data: Sequence[Path], out: Path, options: TrainingOptions, changes: Mapping[str, Any], off: str = ""
) -> Trained:
    """Train on `data` in folder `out`, calibrate, evaluate on the validation split, and write the report.

    Args:
        data: catalogs, or folders with real/ and fake/, to be used together.
        out: the folder of the run; a run that was stopped there is resumed.
        options: everything apart from the recipe.
        changes: fields to replace in the preset's recipe, where not None.
        off: augmentations to leave out, separated by commas, or `all`.

    Raises:
        UsageError: the options do not fit together, or `out` holds another run.
        DataError: `data` can't be trained on.
    """
    recipe = PRESETS[options.preset].replace(**changes)
    recipe = recipe.replace(chances=without(recipe.chances, off))
    if recipe.staged and options.teacher is None:
        asked = f"--staged {changes['staged']}" if changes.get("staged") else f"--preset {options.preset.value}"
        raise UsageError(f"{asked}: needs --teacher, the checkpoint whose maps are learned")
    out = output_folder(out)
    catalog = load_data(*data, split=options.split, seed=recipe.seed).leaving_out(options.leave_out)
    names = [SELF_MADE] * options.self_made + [SELF_BLENDED] * options.self_blended
    with full_disk_reported(out):
        if names:
            training_contract(catalog, options.arch, recipe)  # Refuse what can't be trained before minutes of work.
            on_gpu = torch.cuda.is_available() and options.device != TrainingDevice.CPU
            catalog, added = add_fakes(catalog, names, device="cuda" if on_gpu else "cpu", seed=recipe.seed)
            tell_self_made(added)
        with lost_peers_reported():
            trainer = Trainer(
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
        main = trainer.accelerator.is_main_process
        if main and options.pictures:
            save_augmentations(trainer.dataset, out / AUGMENTATIONS)
        progress = trainer.state.progress
        if main and not progress.finished:
            first = f" from epoch {progress.epoch + 1}" if progress.step else ""
            tell_plan(
                catalog,
                options.arch,
                f"{'up to ' if recipe.patience else ''}{counted(recipe.epochs, 'epoch')}{first} of "
                f"{counted(trainer.steps, 'step')}",
                f"{trainer.accelerator.device.type} ({trainer.accelerator.mixed_precision})",
                trainer.minutes_left(),
                trainer.order.draws if trainer.order.balanced else {},
            )
        with lost_peers_reported():
            best = trainer.run(tell_epoch)
        evaluation = conclude(best, catalog, recipe, progress.history, options) if main else None
    return Trained(best, catalog, evaluation)


def conclude(
    best: Path, catalog: Catalog, recipe: Recipe, history: Sequence[Mapping[str, Any]], options: TrainingOptions
) -> Evaluation:
    """Calibrate the best checkpoint, evaluate it on the validation split, and write report and model card next to
    it.
    """
    valid, out = catalog.split("valid"), best.parent
    logits = checkpoint_logits(best, valid)
    require_logits(valid, logits)
    contract = calibrate_checkpoint(best, catalog, logits, max_fpr=options.max_fpr, max_fnr=options.max_fnr)
    calibration = contract.calibration(CHECKPOINT)
    judged = JudgedFaces(valid, adjust(logits, valid, contract, calibration), calibration)
    data = {"path": str(out / CATALOG), "split": "valid", "left_out": {}}
    alarms = [f"these are the best figures on the validation split, which {recipe.chosen} were chosen on"]
    evaluation = summarize(open_subject(best), judged, data, bootstrap=options.bootstrap, alarms=alarms)
    write_evaluation(out, evaluation, judged, pictures=options.pictures, first=training_sections(history, out))
    write_model_card(out / "MODEL_CARD.md", contract, recipe, catalog, evaluation, options.licence)
    return evaluation


def calibrate_checkpoint(
    path: Path, catalog: Catalog, logits: Logits, *, max_fpr: float, max_fnr: float
) -> ModelContract:
    """Fit a calibration on the validation faces and damaged copies of COPIED of them.

    It is written into the checkpoint, whose contract is returned.
    """
    checkpoint, valid = load_checkpoint(path), catalog.split("valid")
    clean = GradedFaces.of(valid, logits, face_qualities(valid, checkpoint.contract))
    picked = pick_faces(valid, COPIED)
    copies = damaged_copies(path, picked, checkpoint.contract)
    groups = group_faces(valid)
    calibration = fit_by_quality(clean, copies, groups=groups, max_fpr=max_fpr, max_fnr=max_fnr)
    labels, scores = clean.labels, expit(log_odds(logits, calibration, clean.qualities))
    figures = measure(labels, scores, threshold=calibration.balanced, groups=groups, bootstrap=200)
    contract = checkpoint.contract.replace(
        calibrations={CHECKPOINT: calibration}, metrics={CHECKPOINT: {"validation": figures}}
    )
    trained = catalog.split("train")
    names = {
        "sources": sorted({face.source for face in trained if face.source}),
        "generators": sorted({face.generator for face in trained if face.generator}),
    }
    state = {**checkpoint.extra, "trained_on": names}
    save_checkpoint(path, load_model(checkpoint), contract, catalog=checkpoint.catalog, **state)
    return contract


def damaged_copies(path: Path, faces: Sequence[FaceRecord], contract: ModelContract) -> GradedFaces:
    """Judge a checkpoint on randomly damaged copies of `faces`, DAMAGES of each."""
    graded = []
    with progress_bar("thresholds", DAMAGES * len(faces)) as advance:
        for kind in range(DAMAGES):

            def damage(picture: Image.Image, face: FaceRecord, kind: int = kind) -> Image.Image:
                seed = int(face.sha256[:8], 16)
                return random_condition(kind, seed)(picture, seed)

            logits = checkpoint_logits(path, faces, progress=advance, corrupt=damage)
            graded.append(GradedFaces.of(faces, logits, face_qualities(faces, contract, damage)))
    return reduce(add, graded)


def training_sections(history: Sequence[Mapping[str, Any]], out: Path) -> list[Section]:
    """Return the sections of the report that show how training went."""
    names = [name for name in HEADS if name != "stride" or any("stride" in row for row in history)]
    cells = [[row.get(name, "") for name in names] for row in history]
    rows = [[f"{cell:.3f}" if isinstance(cell, float) else cell for cell in row] for row in cells]
    table = Table([HEADS[name] for name in names], rows)
    sections = [Section("Training", [training_curves(history), table])]
    sheet = out / AUGMENTATIONS
    if sheet.is_file():
        picture = Picture(sheet.read_bytes(), "training faces after each augmentation", photo=True)
        sections.append(Section("Augmentations", ["Each row shows one augmentation at full strength.", picture]))
    return sections


def save_augmentations(dataset: FaceDataset, path: Path) -> None:
    """Save a sheet of training faces: one row for each augmentation that is switched on, at full strength."""
    names = [name for name in SWITCHES if dataset.chances.get(name)]
    images = []
    for name in names:
        alone = FaceDataset(dataset.records, dataset.contract, {name: 1.0}, seed=dataset.seed)
        keys = (column * len(alone) // COLUMNS for column in range(COLUMNS))
        images += [Image.fromarray(alone[key][0].numpy()) for key in keys]
    if images:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, contact_sheet(images, "augmentations", columns=COLUMNS, names=names).png)
