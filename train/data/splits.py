"""Splits: faces that belong together are on one side.

They are drawn by a hash of what must stay together (an identity, or near-duplicates), so that files which are added
later leave the others where they were.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge_runtime.errors import DataError
from edge_runtime.model.contract import LABELS
from train.data.catalog import SPLITS, FaceRecord

NEAR = 6
"""Perceptual hashes (64 bits) that differ in at most so many bits are of near-duplicates."""


@dataclass(frozen=True)
class Share:
    """How much of the data goes to train, valid and test; the three add up to 1."""

    train: float
    valid: float
    test: float

    @classmethod
    def parse(cls, text: str) -> "Share":
        """Read `70/15/15`, or `80/20` as the first article has it: training, and validation that is no test.

        Raises:
            DataError: these are not two or three positive numbers.
        """
        try:
            parts = [float(part) for part in text.split("/")]
        except ValueError:
            parts = []
        if len(parts) not in (2, 3) or min(parts) < 0 or parts[0] <= 0 or not np.isfinite(parts).all():
            raise DataError(f"--split {text}: give shares as 70/15/15 (train/valid/test) or 80/20 (train/valid)")
        train, valid, test = (*parts, 0.0)[:3]
        whole = train + valid + test
        return cls(train / whole, valid / whole, test / whole)


def draw_splits(faces: Sequence[FaceRecord], share: Share, seed: int) -> list[FaceRecord]:
    """Return `faces` with a split each, so that what belongs together is never on both sides.

    Faces of one identity and near-duplicates belong together. A split that the folders name is kept; where the folders
    name train but not valid, valid is drawn from train. Where a small set leaves a class out of a split, the group that
    is next in the draw is moved there.
    """
    groups = group_faces(faces)
    given = _given_splits(faces, groups)
    shares = _shares(set(given.values()), share)
    places = {group: _place(group, seed) for group in set(groups)}
    drawn = {group: given.get(group) or _split_at(place, shares) for group, place in places.items()}
    for group, name in given.items():
        if name == "train" and "valid" not in given.values() and share.valid:
            drawn[group] = _split_at(places[group], {"train": share.train, "valid": share.valid, "test": 0.0})
    _fill_gaps(faces, groups, drawn, places, share, given)
    return [replace(face, split=drawn[group]) for face, group in zip(faces, groups, strict=True)]


def wanted_splits(given: Iterable[str], share: Share) -> tuple[str, ...]:
    """Return the splits that should hold faces, where the folders name those of `given`."""
    named = set(given)
    if not named:
        return tuple(name for name in SPLITS if getattr(share, name))
    drawn = {"valid"} if "train" in named and share.valid else set()
    return tuple(name for name in SPLITS if name in named | drawn)


def split_gaps(faces: Sequence[FaceRecord], wanted: Sequence[str]) -> list[str]:
    """Return a sentence for each class that a split of `wanted` holds no face of: which, why, and what to do."""
    gaps = []
    for label, name in enumerate(LABELS):
        own = [face for face in faces if face.label == label]
        empty = [split for split in wanted if all(face.split != split for face in own)]
        if empty:
            splits = f"{' and '.join(empty)} split{'s' * (len(empty) > 1)}"
            hold = "hold" if len(empty) > 1 else "holds"
            gaps.append(f"the {splits} {hold} no {name} faces{_why_empty(own, name, len(wanted))}")
    return gaps


def _why_empty(faces: Sequence[FaceRecord], name: str, splits: int) -> str:
    groups = len(set(group_faces(faces)))
    folders = Counter(face.identity for face in faces if face.identity)
    if groups >= splits or not folders:
        return f"; give more {name} faces, or another --split"
    return (
        f": the {len(faces)} there are belong to {groups} {'identity' if groups == 1 else 'identities'} (folder "
        f"{folders.most_common(1)[0][0]}), and an identity is never split; give each person or video a folder of its "
        f"own, or put pictures of different people straight into the folder of {name} faces"
    )


def _given_splits(faces: Sequence[FaceRecord], groups: Sequence[str]) -> dict[str, str]:
    """Return the split that folders name, by group."""
    return {group: face.split for face, group in zip(faces, groups, strict=True) if face.split}


def _shares(given: set[str], share: Share) -> dict[str, float]:
    return {} if given else {"train": share.train, "valid": share.valid, "test": share.test}


def _place(group: str, seed: int) -> float:
    digest = hashlib.sha256(f"{seed} {group}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _split_at(place: float, shares: Mapping[str, float]) -> str:
    whole = sum(shares.values()) or 1.0
    reached = 0.0
    for name, part in shares.items():
        reached += part / whole
        if place < reached:
            return name
    return "train"


def _fill_gaps(
    faces: Sequence[FaceRecord],
    groups: Sequence[str],
    drawn: dict[str, str],
    places: Mapping[str, float],
    share: Share,
    given: Mapping[str, str],
) -> None:
    wanted = ["valid"] if given else [name for name in SPLITS if getattr(share, name)]
    wanted = [name for name in wanted if name not in given.values() and getattr(share, name)]
    for label in range(len(LABELS)):
        own = sorted({g for face, g in zip(faces, groups, strict=True) if face.label == label}, key=places.__getitem__)
        for name in wanted:
            spare = [group for group in own if drawn[group] == "train"]
            if len(spare) > 1 and name not in {drawn[group] for group in own}:
                drawn[spare[-1]] = name


def group_faces(faces: Sequence[FaceRecord]) -> list[str]:
    """Return for each face the name of its group: one identity, and whatever nearly duplicates one of it.

    Splits keep groups together, and so do intervals: faces that belong together are drawn together.
    """
    parents = list(range(len(faces)))

    def root(index: int) -> int:
        while parents[index] != index:
            parents[index] = parents[parents[index]]
            index = parents[index]
        return index

    for first, second in (*_same_identity(faces), *near_duplicates([face.phash for face in faces])):
        parents[root(first)] = root(second)
    names: dict[int, str] = {}
    for index, face in enumerate(faces):
        name = f"{face.source}/{face.identity}" if face.identity else face.sha256
        names[root(index)] = min(names.get(root(index), name), name)
    return [names[root(index)] for index in range(len(faces))]


def _same_identity(faces: Sequence[FaceRecord]) -> list[tuple[int, int]]:
    """Return pairs of indices of one identity; of a face with several, joined by `+`, each counts."""
    first: dict[tuple[str, str], int] = {}
    pairs = []
    for index, face in enumerate(faces):
        people = face.identity.split("+") if face.identity else ()
        pairs += [(first.setdefault((face.source, person), index), index) for person in people]
    return pairs


def near_duplicates(hashes: Sequence[str]) -> list[tuple[int, int]]:
    """Return pairs of indices whose perceptual hashes differ in at most NEAR bits.

    Cut into NEAR + 1 bands, two such hashes are equal in at least one (pigeonhole), so only those are compared.
    """
    bits = np.array([int(text, 16) for text in hashes], dtype=np.uint64)
    pairs: set[tuple[int, int]] = set()
    for band in np.array_split(np.arange(64, dtype=np.uint64), NEAR + 1):
        mask = np.uint64(sum(1 << int(bit) for bit in band))
        pairs.update(_near_in_band(bits, bits & mask))
    return sorted(pairs)


def _near_in_band(bits: NDArray[np.uint64], keys: NDArray[np.uint64]) -> Iterable[tuple[int, int]]:
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.diff(keys[order], prepend=keys[order][:1] + np.uint64(1)))
    for same in np.split(order, starts[1:]):
        for place, index in enumerate(same[:-1]):
            others = same[place + 1 :]
            near = np.bitwise_count(bits[others] ^ bits[index]) <= NEAR
            yield from ((int(min(index, other)), int(max(index, other))) for other in others[near])
