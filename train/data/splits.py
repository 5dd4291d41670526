"""Splits: faces of one person, video or near-duplicate picture never end up on both sides.

A split is drawn by hashing a group's name, so that adding files later does not move the others.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from edge_runtime.errors import DataError
from edge_runtime.model.contract import LABELS
from edge_runtime.pixels.phash import NEAR_BITS
from train.data.catalog import SPLITS, FaceRecord

Groups = Sequence[str] | None
"""The group of each face [N]; None: each face is its own."""


@dataclass(frozen=True)
class Share:
    """Shares of train, valid and test; they add up to 1."""

    train: float
    valid: float
    test: float

    @classmethod
    def parse(cls, text: str) -> "Share":
        """Read `70/15/15`, or `80/20` as in the first article: training and validation, no test.

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
    """Return `faces` with a split each; a group (see `group_faces`) is never cut.

    Splits named by folders are kept; if there is train but no valid, valid is drawn from train. If a small data set
    leaves a class out of a split, the class's training group that was drawn last is moved there.
    """
    groups = group_faces(faces)
    given = {group: face.split for face, group in zip(faces, groups, strict=True) if face.split}
    shares = {"train": share.train, "valid": share.valid, "test": share.test}
    to_draw = [name for name in SPLITS if shares[name]]
    if given:
        shares["test"] = 0.0
        to_draw = ["valid"] if share.valid and "valid" not in given.values() else []

    places, drawn = {}, {}
    for group in set(groups):
        places[group] = _place(group, seed)
    for group, place in places.items():
        if not given or (to_draw and given.get(group) == "train"):
            drawn[group] = _split_at(place, shares)
        else:
            drawn[group] = given.get(group, "train")

    for label in range(len(LABELS)):
        own = sorted({g for face, g in zip(faces, groups, strict=True) if face.label == label}, key=places.__getitem__)
        for name in to_draw:
            spare = [group for group in own if drawn[group] == "train"]
            if len(spare) > 1 and name not in {drawn[group] for group in own}:
                drawn[spare[-1]] = name
    return [replace(face, split=drawn[group]) for face, group in zip(faces, groups, strict=True)]


def hashed_split(group: str, share: Share, seed: int) -> str:
    """Return the split that a group is drawn into, which depends on its name and `seed` alone."""
    return _split_at(_place(group, seed), vars(share))


def _place(group: str, seed: int) -> float:
    """Return a number in [0, 1) that is drawn for a group."""
    digest = hashlib.sha256(f"{seed} {group}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _split_at(place: float, shares: Mapping[str, float]) -> str:
    whole, end = sum(shares.values()), 0.0
    for name, part in shares.items():
        end += part / whole
        if place < end:
            return name
    return "train"


def wanted_splits(given: Iterable[str], share: Share) -> tuple[str, ...]:
    """Return the splits that should hold faces, where `given` are those that the folders name."""
    named = set(given)
    if not named:
        return tuple(name for name in SPLITS if getattr(share, name))
    if "train" in named and share.valid:
        named.add("valid")
    return tuple(name for name in SPLITS if name in named)


def split_gaps(faces: Sequence[FaceRecord], wanted: Sequence[str]) -> list[str]:
    """Return a sentence for each class that is missing in a split of `wanted`: which, why, and what to do."""
    gaps = []
    for label, name in enumerate(LABELS):
        own = [face for face in faces if face.label == label]
        empty = [split for split in wanted if all(face.split != split for face in own)]
        if not empty:
            continue
        groups = len(set(group_faces(own)))
        folders = Counter(face.identity for face in own if face.identity)
        why = f"; give more {name} faces, or another --split"
        if groups < len(wanted) and folders:
            why = (
                f": all {len(own)} belong to {groups} {'identity' if groups == 1 else 'identities'} (folder "
                f"{folders.most_common(1)[0][0]}), and an identity stays in one split; give each person or video its "
                f"own folder, or put pictures of different people directly into the folder of {name} faces"
            )
        splits = f"{' and '.join(empty)} {'splits hold' if len(empty) > 1 else 'split holds'}"
        gaps.append(f"the {splits} no {name} faces{why}")
    return gaps


def group_faces(faces: Sequence[FaceRecord]) -> list[str]:
    """Return the name of each face's group: everything linked by an identity or by near-duplicate pictures.

    Of an identity such as `000+003`, each person counts. Splits and the bootstrap keep groups whole.
    """
    first: dict[tuple[str, str], int] = {}
    links = near_duplicates([face.phash for face in faces])
    for index, face in enumerate(faces):
        people = face.identity.split("+") if face.identity else ()
        links += [(first.setdefault((face.source, person), index), index) for person in people]
    pairs = np.array(links, dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(pairs.shape[1], dtype=bool), pairs), shape=(len(faces), len(faces)))
    components = connected_components(graph, directed=False)[1] if faces else []
    names: dict[int, str] = {}
    for component, face in zip(components, faces, strict=True):
        name = f"{face.source}/{face.identity}" if face.identity else face.sha256 or str(face.path)
        names[component] = min(names.get(component, name), name)
    return [names[component] for component in components]


def group_count(groups: Groups, chosen: NDArray[np.bool_]) -> int:
    """Return how many groups the `chosen` faces [N] are of.

    Faces of one person or video fail together, so a bound that counted each of them would prove too much.
    """
    return int(chosen.sum()) if groups is None else len(set(np.asarray(groups)[chosen]))


def near_duplicates(hashes: Sequence[str]) -> list[tuple[int, int]]:
    """Return pairs of indices whose perceptual hashes differ in at most NEAR_BITS bits; empty ones have no pairs.

    Of NEAR_BITS + 1 bands, two such hashes share at least one (pigeonhole), so only those with an equal band are
    compared.
    """
    known = np.array([index for index, text in enumerate(hashes) if text], dtype=np.int64)
    bits = np.array([int(text or "0", 16) for text in hashes], dtype=np.uint64)
    pairs: set[tuple[int, int]] = set()
    for band in np.array_split(np.arange(64, dtype=np.uint64), NEAR_BITS + 1):
        keys = bits & np.uint64(sum(1 << int(bit) for bit in band))
        order = known[np.argsort(keys[known], kind="stable")]
        starts = np.flatnonzero(np.diff(keys[order], prepend=keys[order][:1] + np.uint64(1)))
        for same in np.split(order, starts[1:]):
            for place, index in enumerate(same[:-1]):
                others = same[place + 1 :]
                near = others[np.bitwise_count(bits[others] ^ bits[index]) <= NEAR_BITS]
                pairs.update((int(min(index, other)), int(max(index, other))) for other in near)
    return sorted(pairs)
