"""Which faces calibrate and which are measured: never the same ones."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.errors import DataError
from train.catalog import CATALOG, SPLITS, FaceRecord, load_data
from train.workers import Advance


@dataclass(frozen=True)
class ExportFaces:
    """Faces to calibrate with, and other, labelled ones to measure on; each in a seeded order, classes alternating."""

    calibration: tuple[FaceRecord, ...]
    measured: tuple[FaceRecord, ...]


def choose_faces(
    path: Path, *, calibration: int, measured: int, seed: int = 42, advance: Advance | None = None
) -> ExportFaces:
    """Choose faces of a catalog or of a folder with real/ and fake/.

    Where there are splits, calibration takes the training split and measuring the validation split; a plain folder is
    cut into seeded halves of each class.

    Args:
        path: catalog.csv, a folder that holds one, or a folder with real/ and fake/.
        calibration: at most so many to calibrate with.
        measured: at most so many to measure on.
        seed: of the order, and of the halves.
        advance: told how many more pictures were looked at.

    Raises:
        DataError: there are no usable pictures, a class is missing, or a split that is needed is empty.
    """
    path = path.expanduser()
    plain = path.is_dir() and not any((path / name).exists() for name in (CATALOG, *SPLITS))
    # Near-duplicates stay on one side: the catalog's own splits keep them together.
    catalog = load_data(path, split="50/50/0" if plain else "70/15/15", seed=seed, advance=advance)
    train = _alternating(catalog.split("train"), calibration, seed)
    valid = _alternating(catalog.split("valid"), measured, seed)
    if not train or not valid:
        raise DataError(f"{path}: calibration needs faces in the splits train and valid; run prepare-faces")
    return ExportFaces(train, valid)


def _alternating(faces: Sequence[FaceRecord], count: int, seed: int) -> tuple[FaceRecord, ...]:
    """Return at most `count` faces in seeded order, real and fake in turn as long as there are both."""
    classes = [[face for face in faces if face.label == label] for label in (0, 1)]
    for members in classes:
        random.Random(seed).shuffle(members)
    pairs = min(len(members) for members in classes)
    even = [face for pair in zip(*classes, strict=False) for face in pair]
    rest = [face for members in classes for face in members[pairs:]]
    return tuple((even + rest)[:count])
