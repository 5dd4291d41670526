"""Which faces calibrate and which are measured: never the same ones."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from edge_runtime.errors import DataError
from edge_runtime.paths import expand
from train.data.build import has_splits, load_data
from train.data.catalog import SEED, SHARES, FaceRecord, Quarantined
from train.data.remote import fetched
from train.data.sample import alternate_classes, take_readable
from train.data.splits import group_faces
from train.evaluation.training_faces import face_mark
from train.sample_faces import sample_face

ENOUGH = 300
"""With fewer measured faces the report warns: a share of 2 % is 6 of 300."""

FAMILIAR = 1000
"""At most this many faces for the reference statistics."""

DRAWN = 32


@dataclass(frozen=True)
class ExportFaces:
    """Faces to calibrate with, and other, labelled ones to measure on; in seeded order, real and fake in turn.

    `familiar` are faces that the model was not trained on, for the reference statistics; the measured ones are among
    them. `notes` are remarks for the report, `left_out` the pictures that could not be used.
    """

    calibration: tuple[FaceRecord, ...]
    measured: tuple[FaceRecord, ...]
    familiar: tuple[FaceRecord, ...] = ()
    notes: tuple[str, ...] = ()
    left_out: tuple[Quarantined, ...] = ()

    @property
    def labels(self) -> list[int]:
        """Labels of the measured faces."""
        return [face.label for face in self.measured]

    @cached_property
    def groups(self) -> list[str]:
        """Groups of the measured faces that the splits keep together; the bootstrap draws each group as one."""
        return group_faces(self.measured)


def choose_faces(
    path: Path, *, calibration: int, measured: int, seed: int = SEED, trained: Collection[str] = ()
) -> ExportFaces:
    """Choose faces of a catalog or of a folder with real/ and fake/, or from the address of one.

    Where there are splits, the training split calibrates and the validation split is measured; a plain folder is cut
    into seeded halves. Near-duplicates and the faces of one person stay on one side. A face that the model was trained
    on (its mark is in `trained`, see train.evaluation.training_faces) may calibrate, but is never measured, which
    would flatter it. At most `calibration` and `measured` faces are taken, and FAMILIAR for the reference statistics.

    Raises:
        DataError: there are no usable pictures, or one side lacks a class.
    """
    place = fetched(expand(path))
    plain = not has_splits(place)
    catalog = load_data(place, split="50/50" if plain else SHARES, seed=seed)
    valid = catalog.split("valid")
    unseen = [face for face in valid if face_mark(face) not in trained]
    known = len(valid) - len(unseen)
    calibrating, lost = take_readable(alternate_classes(catalog.split("train"), seed), calibration)
    # The training split of a catalog may be what a bare state_dict was trained on.
    others = [face for face in catalog.split("train") if plain and face_mark(face) not in trained]
    in_turn = [*alternate_classes(unseen, seed), *alternate_classes(others, seed)]
    familiar, lost_too = take_readable(in_turn, max(measured, FAMILIAR))
    measuring = tuple(face for face in familiar if face.split == "valid")[:measured]
    for split, faces in (("train", calibrating), ("valid", measuring)):
        if len({face.label for face in faces}) < 2:
            part = "a half of it" if plain else f"its split {split}"
            remedy = "; give more pictures of both"
            if split == "valid" and known:
                remedy = (
                    f" other than {known} that the model was trained on; give faces that it has not seen, or leave out "
                    "--calibration where the checkpoint's own catalog is still there"
                )
            raise DataError(f"{path}: {part} has no readable real and fake faces{remedy}")
    left_out = tuple(dict.fromkeys((*catalog.quarantine, *lost, *lost_too)))
    notes = []
    if left_out:
        notes.append(f"{len(left_out)} pictures can't be used and are left out.")
    if known:
        notes.append(f"{known} faces that the model was trained on are not measured.")
    if len(measuring) < min(ENOUGH, measured):
        notes.append(f"Only {len(measuring)} of {ENOUGH} wanted faces to measure on: the figures are less certain.")
    return ExportFaces(calibrating, measuring, familiar[:FAMILIAR], tuple(notes), left_out)


def draw_faces(folder: Path) -> ExportFaces:
    """Draw faces to compare the stages on if no data was given; they can't calibrate."""
    folder.mkdir()
    records = []
    for seed in range(DRAWN // 2):
        for label, face in enumerate((sample_face(1000 + seed, "real"), sample_face(1000 + seed, "fake"))):
            path = folder / f"{seed}-{label}.png"
            face.save(path)
            records.append(drawn_record(path, label))
    return ExportFaces((), tuple(records))


def drawn_record(path: Path, label: int) -> FaceRecord:
    """Return the record of a drawn picture; it is in no catalog, so its hashes and sizes are left empty."""
    unknown: dict[str, Any] = {
        "generator": "",
        "identity": "",
        "box": None,
        "sha256": "",
        "phash": "",
        "width": 0,
        "height": 0,
    }
    return FaceRecord(path=path, label=label, split="valid", source="drawn", sharpness=0.0, **unknown)
