"""Which faces calibrate and which are measured: never the same ones."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.errors import DataError, PictureError
from edge_runtime.pictures import read_picture
from train.catalog import CATALOG, SPLITS, FaceRecord, load_data
from train.sample_faces import sample_face
from train.workers import ordered_map

ENOUGH = 300
"""Measured faces under which the certificate says so: a share of 2 % is 6 of 300."""

DRAWN = 32


@dataclass(frozen=True)
class ExportFaces:
    """Faces to calibrate with, and other, labelled ones to measure on; in seeded order, real and fake in turn.

    `notes` says what a reader of the figures must know.
    """

    calibration: tuple[FaceRecord, ...]
    measured: tuple[FaceRecord, ...]
    notes: tuple[str, ...] = ()

    @property
    def labels(self) -> list[int]:
        """Labels of the measured faces."""
        return [face.label for face in self.measured]


def choose_faces(path: Path, *, calibration: int, measured: int, seed: int = 42) -> ExportFaces:
    """Choose faces of a catalog or of a folder with real/ and fake/.

    Where there are splits, calibration takes the training split and measuring the validation split; a plain folder is
    cut into seeded halves. Near-duplicates and the faces of one person stay on one side.

    Args:
        path: catalog.csv, a folder that holds one, or a folder with real/ and fake/.
        calibration: at most so many to calibrate with.
        measured: at most so many to measure on.
        seed: of the order, and of the halves.

    Raises:
        DataError: there are no usable pictures, or a class is missing on a side.
    """
    path = path.expanduser()
    plain = path.is_dir() and not any((path / name).exists() for name in (CATALOG, *SPLITS))
    catalog = load_data(path, split="50/50" if plain else "70/15/15", seed=seed)
    sides = {
        "train": _readable(_alternating(catalog.split("train"), seed), calibration),
        "valid": _readable(_alternating(catalog.split("valid"), seed), measured),
    }
    for split, faces in sides.items():
        if len({face.label for face in faces}) < 2:
            half = "a half of it" if plain else f"its split {split}"
            raise DataError(f"{path}: {half} has no readable real and fake faces; give more pictures of both")
    return ExportFaces(sides["train"], sides["valid"], _notes(sides["valid"], measured))


def _notes(faces: Sequence[FaceRecord], wanted: int) -> tuple[str, ...]:
    if len(faces) >= min(ENOUGH, wanted):
        return ()
    return (f"Only {len(faces)} faces to measure on, {ENOUGH} are wanted: the figures are less certain.",)


def _alternating(faces: Sequence[FaceRecord], seed: int) -> list[FaceRecord]:
    """Return the faces in seeded order, real and fake in turn as long as there are both."""
    classes = [[face for face in faces if face.label == label] for label in (0, 1)]
    for members in classes:
        random.Random(seed).shuffle(members)
    pairs = min(len(members) for members in classes)
    even = [face for pair in zip(*classes, strict=False) for face in pair]
    return even + [face for members in classes for face in members[pairs:]]


def _readable(faces: Sequence[FaceRecord], count: int) -> tuple[FaceRecord, ...]:
    """Return the first `count` faces whose pictures can be read."""
    found: list[FaceRecord] = []
    for face, readable in zip(faces, ordered_map(_can_read, faces), strict=True):
        if readable:
            found.append(face)
        if len(found) == count:
            break
    return tuple(found)


def _can_read(face: FaceRecord) -> bool:
    try:
        read_picture(face.path)
    except PictureError:
        return False
    return True


def draw_faces(folder: Path) -> ExportFaces:
    """Draw faces to compare the stages on where no others were given; they calibrate nothing."""
    folder.mkdir()
    records = []
    for seed in range(DRAWN // 2):
        for label, face in enumerate((sample_face(1000 + seed, "real"), sample_face(1000 + seed, "fake"))):
            path = folder / f"{seed}-{label}.png"
            face.save(path)
            records.append(FaceRecord(path, label, "valid", "drawn", "", "", None, "", "", 0, 0, 0.0))
    return ExportFaces((), tuple(records))
