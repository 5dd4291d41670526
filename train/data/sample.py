"""Picks a subset of faces: the same one each time, balanced between real and fake."""

import random
from collections.abc import Iterable, Sequence

from edge_runtime.errors import PictureError
from train.data.catalog import SEED, FaceRecord, Quarantined
from train.parallel import ordered_map


def alternate_classes(faces: Sequence[FaceRecord], seed: int = SEED) -> list[FaceRecord]:
    """Return all faces in random order, real and fake in turn; what is left of the larger class comes last."""
    classes = [[face for face in faces if face.label == label] for label in (0, 1)]
    for members in classes:
        random.Random(seed).shuffle(members)
    pairs = min(len(members) for members in classes)
    in_turn = [face for pair in zip(*classes, strict=False) for face in pair]
    return in_turn + [face for members in classes for face in members[pairs:]]


def pick_faces(faces: Sequence[FaceRecord], count: int | None, seed: int = SEED) -> tuple[FaceRecord, ...]:
    """Return `count` faces (None: all) in the order of `faces`, half of them fake where there are enough."""
    if count is None or count >= len(faces):
        return tuple(faces)
    picked = {face.path for face in alternate_classes(faces, seed)[:count]}
    return tuple(face for face in faces if face.path in picked)


def take_readable(
    faces: Iterable[FaceRecord], count: int | None = None
) -> tuple[tuple[FaceRecord, ...], tuple[Quarantined, ...]]:
    """Return the first `count` faces (None: all) whose pictures can be read, and the unreadable ones before them."""

    def read(face: FaceRecord) -> tuple[FaceRecord, str]:
        try:
            face.read()
        except PictureError as error:
            return face, error.reason
        return face, ""

    found: list[FaceRecord] = []
    unreadable: list[Quarantined] = []
    for face, reason in ordered_map(read, faces):
        if reason:
            unreadable.append(Quarantined(face.path, reason, broken=True))
        else:
            found.append(face)
        if len(found) == count:
            break
    return tuple(found), tuple(unreadable)
