"""Which faces calibrate and which are measured: never the same ones."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from edge_runtime.errors import DataError
from train.data.build import CATALOG, SPLITS, FaceRecord, Quarantined, load_data
from train.data.sample import alternate_classes, take_readable
from train.data.splits import group_faces
from train.evaluation.seen import face_mark
from train.sample_faces import sample_face

ENOUGH = 300
"""Measured faces under which the certificate says so: a share of 2 % is 6 of 300."""

DRAWN = 32


@dataclass(frozen=True)
class ExportFaces:
    """Faces to calibrate with, and other, labelled ones to measure on; in seeded order, real and fake in turn.

    `notes` says what a reader of the figures must know, `left_out` which pictures could not be used.
    """

    calibration: tuple[FaceRecord, ...]
    measured: tuple[FaceRecord, ...]
    notes: tuple[str, ...] = ()
    left_out: tuple[Quarantined, ...] = ()

    @property
    def labels(self) -> list[int]:
        """Labels of the measured faces."""
        return [face.label for face in self.measured]

    @cached_property
    def groups(self) -> list[str]:
        """What is drawn together in the intervals of the measured faces: what the splits keep together too."""
        return group_faces(self.measured)


def choose_faces(
    path: Path, *, calibration: int, measured: int, seed: int = 42, trained: Collection[str] = ()
) -> ExportFaces:
    """Choose faces of a catalog or of a folder with real/ and fake/.

    Where there are splits, calibration takes the training split and measuring the validation split; a plain folder is
    cut into seeded halves. Near-duplicates and the faces of one person stay on one side. A face that the model was
    trained on may calibrate, but is never measured: it would be told too well.

    Args:
        path: catalog.csv, a folder that holds one, or a folder with real/ and fake/.
        calibration: at most so many to calibrate with.
        measured: at most so many to measure on.
        seed: of the order, and of the halves.
        trained: marks of the faces that the model was trained on (train.evaluation.seen).

    Raises:
        DataError: there are no usable pictures, or a class is missing on a side.
    """
    path = path.expanduser()
    plain = path.is_dir() and not any((path / name).exists() for name in (CATALOG, *SPLITS))
    catalog = load_data(path, split="50/50" if plain else "70/15/15", seed=seed)
    unseen = [face for face in catalog.split("valid") if face_mark(face) not in trained]
    known = len(catalog.split("valid")) - len(unseen)
    sides = {
        "train": take_readable(alternate_classes(catalog.split("train"), seed), calibration),
        "valid": take_readable(alternate_classes(unseen, seed), measured),
    }
    for split, (faces, _) in sides.items():
        if len({face.label for face in faces}) < 2:
            half = "a half of it" if plain else f"its split {split}"
            raise DataError(f"{path}: {half} has no readable real and fake faces{_remedy(split, known)}")
    (calibrating, gone), (measuring, lost) = sides.values()
    left_out = (*catalog.quarantine, *gone, *lost)
    notes = tuple(_notes(measuring, measured, known, len(left_out)))
    return ExportFaces(calibrating, measuring, notes, left_out)


def _remedy(split: str, known: int) -> str:
    if split != "valid" or not known:
        return "; give more pictures of both"
    return (
        f" but {known} that the model was trained on; give faces that it has not seen, or leave --calibration out "
        "where its own catalog is at hand"
    )


def _notes(faces: Sequence[FaceRecord], wanted: int, known: int, left_out: int) -> Iterator[str]:
    if left_out:
        yield f"{left_out} pictures can't be used and are left out."
    if known:
        yield f"{known} faces that the model was trained on are not measured."
    if len(faces) < min(ENOUGH, wanted):
        yield f"Only {len(faces)} faces to measure on, {ENOUGH} are wanted: the figures are less certain."


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
