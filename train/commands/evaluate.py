"""What `evaluate-detector` does, as a function that a notebook could call. Torch is imported for checkpoints alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_runtime.errors import DataError, UsageError
from edge_runtime.model.contract import CHECKPOINT
from train.data.build import CATALOG, Catalog, FaceRecord, labelled_files, load_data
from train.data.catalog import SEED, SHARES
from train.data.degrade import CROSSED, ONE_BY_ONE, Condition
from train.data.sample import pick_faces
from train.evaluation.evaluation import (
    Evaluation,
    Judged,
    Subject,
    choose_split,
    condition_row,
    count_look,
    judge_faces,
    open_subject,
    robustness_row,
    summarize,
)
from train.evaluation.seen import among
from train.parallel import progress_bar
from train.report.evaluation import write_evaluation


@dataclass(frozen=True)
class EvaluationOptions:
    """How a detector is evaluated."""

    split: str = "auto"
    precision: str | None = None
    device: str = "CPU"
    robustness: str = "off"
    robustness_faces: int = 400
    pictures: bool = True
    bootstrap: int = 1000
    attacks: bool = False


GRIDS: Mapping[str, Sequence[Condition]] = {"off": (), "one": ONE_BY_ONE, "crossed": CROSSED}
"""Rows of the robustness grid, by the name that `--robustness` takes."""


def evaluate_detector(model: Path, data: Path, out: Path, options: EvaluationOptions) -> Evaluation:
    """Judge the faces of `data` with a checkpoint or bundle and write figures and report into folder `out`.

    Raises:
        UsageError: there is no such grid or precision, or the model to be attacked is no checkpoint.
        DataError: there is nothing to judge.
    """
    if options.robustness not in GRIDS:
        raise UsageError(f"--robustness {options.robustness}: unknown; choose one of {', '.join(GRIDS)}")
    subject = open_subject(model, precision=options.precision, device=options.device)
    if options.attacks and subject.precision != CHECKPOINT:
        raise UsageError("--attacks needs a checkpoint: a bundle has no gradients")
    catalog = read_data(data)
    split = choose_split(data, catalog, options.split)
    faces = catalog.split(split)
    if not faces:
        raise DataError(f"{data}: the {split} split holds no faces; choose another --split")
    with progress_bar("judging", len(faces)) as advance:
        judged = judge_faces(subject, faces, advance)
    left_out = {str(file.path): file.reason for file in catalog.quarantine}
    described = {
        "path": str(data),
        "split": split,
        "looks": count_look(faces, subject),
        "left_out": left_out,
        "broken": [str(file.path) for file in catalog.quarantine if file.broken],
    }
    rows = judge_grid(subject, judged.faces, GRIDS[options.robustness], options.robustness_faces)
    if options.attacks:
        rows += attack_rows(subject, catalog, pick_faces(judged.faces, options.robustness_faces))
    alarms = _alarms(subject, judged.faces)
    if split == "valid":
        alarms.append("the checkpoint and its thresholds were chosen on validation faces: expect less on others")
    evaluation = summarize(subject, judged, described, bootstrap=options.bootstrap, robustness=rows, alarms=alarms)
    write_evaluation(out.expanduser(), evaluation, judged, pictures=options.pictures)
    return evaluation


def read_data(data: Path, *, split: str = SHARES, seed: int = SEED) -> Catalog:
    """Return the catalog of `data`, with a bar while a folder is scanned."""
    folder = data.expanduser()
    total = 0 if folder.is_file() or (folder / CATALOG).is_file() else len(labelled_files(folder))
    with progress_bar("reading", total) as advance:
        return load_data(folder, split=split, seed=seed, advance=advance)


def judge_grid(
    subject: Subject, faces: Sequence[FaceRecord], grid: Sequence[Condition], count: int
) -> list[dict[str, Any]]:
    """Return the rows of the robustness grid, on `count` of `faces`."""
    chosen = pick_faces(faces, count)
    rows = []
    with progress_bar("robustness", len(grid)) as advance:
        for condition in grid:
            rows.append({**robustness_row(subject, chosen, condition, bootstrap=200), "faces": len(chosen)})
            advance(1)
    return rows


def attack_rows(subject: Subject, catalog: Catalog, faces: Sequence[FaceRecord]) -> list[dict[str, Any]]:
    """Return rows for adversarial pictures and for washed fakes; the washer learns from the training split's reals.

    `subject` is a checkpoint, since a bundle has no gradients; `faces` are of those that could be judged.
    """
    from train.evaluation.attacks import ATTACKS, STRENGTHS, attacked_logits, train_washer, wash_fakes

    rows = []
    for name, attack in ATTACKS.items():
        for levels in STRENGTHS:
            judged = Judged(tuple(faces), attacked_logits(subject.path, faces, attack, levels), subject.calibration)
            rows.append({**condition_row(f"{name} {levels}/255", judged, 200), "faces": len(faces)})
    washer = train_washer([face for face in catalog.split("train") if face.label == 0])
    if washer:
        judged = judge_faces(subject, faces, corrupt=wash_fakes(washer))
        rows.append({**condition_row("fakes through an autoencoder", judged, 200), "faces": len(faces)})
    return rows


def _alarms(subject: Subject, faces: Sequence[FaceRecord]) -> list[str]:
    seen = among(subject.trained, faces)
    if not seen:
        return []
    return [
        f"{len(seen)} of the {len(faces)} judged faces were trained on, so the figures promise too much "
        f"(e.g. {seen[0].path})"
    ]
