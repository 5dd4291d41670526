"""Which faces a detector was trained on. The export never measures on them, and an evaluation warns about them."""

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from edge_runtime.errors import DataError
from edge_runtime.model.bundle import Bundle
from train.data.catalog import CATALOG, Catalog, FaceRecord

if TYPE_CHECKING:
    from train.models.checkpoint import Checkpoint

TRAINING_FACES = "training_faces.txt"
"""The file of a bundle that lists them, one mark per line. The runtime never reads it."""

MARK = 16
"""Hex digits of a face's SHA-256 that are kept: enough to tell it from all others."""


def face_mark(face: FaceRecord) -> str:
    """Return the beginning of the face's SHA-256."""
    return face.sha256[:MARK]


def among(marks: Collection[str], faces: Iterable[FaceRecord]) -> list[FaceRecord]:
    """Return those of `faces` whose mark is in `marks`."""
    return [face for face in faces if face_mark(face) in marks]


def checkpoint_faces(checkpoint: "Checkpoint") -> frozenset[str]:
    """Return the mark of each face that a checkpoint was trained on; empty if its catalog can't be read.

    The catalog is looked for where training read it, then beside the checkpoint. One whose fingerprint is not the
    contract's is another catalog, and is ignored.
    """
    wanted = checkpoint.contract.data
    places = [checkpoint.catalog, str(checkpoint.path.parent / CATALOG) if wanted else ""]
    for path in filter(None, places):
        try:
            catalog = Catalog.read(path)
        except DataError:
            continue
        if wanted in ("", catalog.fingerprint):
            return frozenset(map(face_mark, catalog.split("train")))
    return frozenset()


def bundle_faces(bundle: Bundle) -> frozenset[str]:
    """Return the mark of each face that a bundle's model was trained on; empty if the bundle has no list.

    Raises:
        BundleError: the list was changed or is missing.
    """
    if TRAINING_FACES not in bundle.manifest.files:
        return frozenset()
    return frozenset(bundle.file(TRAINING_FACES).read_text(encoding="utf-8").split())


def write_training_faces(folder: Path, marks: Collection[str]) -> None:
    """Write the marks into a bundle's folder, if there are any."""
    if marks:
        lines = [f"{mark}\n" for mark in sorted(marks)]
        (folder / TRAINING_FACES).write_text("".join(lines), encoding="utf-8")
