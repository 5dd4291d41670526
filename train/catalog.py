"""The catalog: which faces there are, what is known of each, and which split it belongs to.

Splits are drawn by a hash of what must stay together (an identity, or near-duplicates), so that files which are added
later leave the others where they were.
"""

import csv
import hashlib
import io
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn

from edge_runtime.contract import LABELS
from edge_runtime.errors import DataError, PictureError
from edge_runtime.pictures import SUFFIXES, read_picture
from edge_runtime.preprocess import Box
from train.workers import Advance, ordered_map

CATALOG = "catalog.csv"
QUARANTINE = "quarantine.csv"
SPLITS = ("train", "valid", "test")
MIN_SIDE = 32
"""Pixels: a picture with a shorter side holds no face that can be judged."""

NEAR = 6
"""Perceptual hashes (64 bits) that differ in at most so many bits are of near-duplicates."""


@dataclass(frozen=True)
class Candidate:
    """A file that may become a face of the catalog; empty where something is not known."""

    path: Path
    label: int
    split: str = ""
    source: str = ""
    generator: str = ""
    identity: str = ""


@dataclass(frozen=True)
class FaceRecord:
    """A face of the catalog.

    Attributes:
        path: the picture, absolute.
        label: 0 real, 1 fake.
        split: train, valid or test.
        source: the data set it is from.
        generator: what made it, for a fake.
        identity: who or what must stay in one split; empty where unknown.
        box: the face's left, top, right, bottom in pixels; None for the whole picture.
        sha256: of the file, hexadecimal.
        phash: perceptual hash, 16 hexadecimal digits.
        width, height: of the upright picture, in pixels.
        sharpness: variance of the Laplacian of the grey picture (0 is flat; under about 10 is blurred).
    """

    path: Path
    label: int
    split: str
    source: str
    generator: str
    identity: str
    box: Box | None
    sha256: str
    phash: str
    width: int
    height: int
    sharpness: float


@dataclass(frozen=True)
class Quarantined:
    """A file that was left out, and why; `broken` where it can't be read. The file itself stays where it is."""

    path: Path
    reason: str
    broken: bool = False


@dataclass(frozen=True)
class Catalog:
    """Faces in the order of their paths, and the files that were left out."""

    records: tuple[FaceRecord, ...]
    quarantine: tuple[Quarantined, ...] = ()

    @property
    def fingerprint(self) -> str:
        """SHA-256 over contents, labels and splits: the same wherever the files lie."""
        lines = sorted(f"{face.sha256} {face.label} {face.split}\n" for face in self.records)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def split(self, name: str) -> tuple[FaceRecord, ...]:
        """Return the faces of split `name`, or of all for `all`."""
        if name != "all" and name not in SPLITS:
            raise DataError(f"{name}: no split; choose one of {', '.join(SPLITS)}, all")
        return tuple(face for face in self.records if name in (face.split, "all"))

    def write(self, path: Path | str) -> None:
        """Write the catalog, in one step, and beside it the quarantine list where something was left out.

        Paths inside the catalog's folder are written relative to it, so that the folder can be moved.
        """
        path = Path(path).expanduser()
        path.parent.mkdir(parents=True, exist_ok=True)
        root = path.parent.resolve()
        _write_csv(path, [field.name for field in fields(FaceRecord)], (_row(face, root) for face in self.records))
        if self.quarantine:
            rows = ([str(file.path), file.reason] for file in self.quarantine)
            _write_csv(path.with_name(QUARANTINE), ["path", "reason"], rows)

    @classmethod
    def read(cls, path: Path | str) -> "Catalog":
        """Read what `write` wrote.

        Raises:
            DataError: it is missing, or a line of it can't be read.
        """
        path = Path(path).expanduser()
        try:
            text = path.read_text(encoding="utf-8", errors="surrogateescape")
        except OSError as error:
            raise DataError(f"{path}: can't be read ({error.strerror or error}); run prepare-faces") from None
        reader = csv.DictReader(io.StringIO(text, newline=""))
        root = path.parent.resolve()
        return cls(tuple(_record(row, root, f"{path}:{reader.line_num}") for row in reader))


def _write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        writer.writerows(rows)
    partial.replace(path)


def _row(face: FaceRecord, root: Path) -> list[str]:
    path = face.path.relative_to(root) if face.path.is_relative_to(root) else face.path
    box = " ".join(f"{edge:g}" for edge in face.box) if face.box else ""
    values = (str(path), LABELS[face.label], face.split, face.source, face.generator, face.identity, box)
    return [*values, face.sha256, face.phash, str(face.width), str(face.height), f"{face.sharpness:.2f}"]


def _record(row: Mapping[str, str], root: Path, where: str) -> FaceRecord:
    try:
        if row["split"] not in SPLITS:
            raise ValueError(f"split {row['split']!r}")
        box = tuple(float(edge) for edge in row["box"].split())
        return FaceRecord(
            path=root / row["path"],
            label=LABELS.index(row["label"]),
            split=row["split"],
            source=row["source"],
            generator=row["generator"],
            identity=row["identity"],
            box=(box[0], box[1], box[2], box[3]) if box else None,
            sha256=row["sha256"],
            phash=row["phash"],
            width=int(row["width"]),
            height=int(row["height"]),
            sharpness=float(row["sharpness"]),
        )
    except (KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise DataError(f"{where}: no line of a catalog ({error}); run prepare-faces again") from None


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


def load_data(path: Path | str, *, split: str = "70/15/15", seed: int = 42, advance: Advance | None = None) -> Catalog:
    """Return the catalog of `path`: a catalog.csv, a folder that holds one, or a folder with real/ and fake/.

    Folders train/, valid/ and test/ with real/ and fake/ inside are respected; of the splits that are missing, valid is
    taken from train.

    Raises:
        DataError: there is nothing of the kind, or a class is empty.
    """
    path = Path(path).expanduser()
    if path.is_file():
        return Catalog.read(path)
    if (path / CATALOG).is_file():
        return Catalog.read(path / CATALOG)
    return build_catalog(labelled_files(path), split=split, seed=seed, advance=advance)


def labelled_files(root: Path) -> list[Candidate]:
    """Return the pictures in `root`/real and `root`/fake, or in these below train/, valid/ and test/.

    Raises:
        DataError: there are no such folders, or one holds no picture.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give a catalog.csv or a folder with real/ and fake/ inside")
    parts = [name for name in SPLITS if (root / name).is_dir()] or [""]
    found: list[Candidate] = []
    for part in parts:
        for label, name in enumerate(LABELS):
            folder = root / part / name
            if not folder.is_dir():
                raise DataError(f"{root / part}: holds no folder {name}/; put the {name} faces there")
            files = picture_files(folder)
            if not files:
                raise DataError(f"{folder}: holds no pictures; put the {name} faces there")
            source, base = root.resolve().name, folder.resolve()
            found += [Candidate(file, label, part, source, identity=_folder(file, base)) for file in files]
    return found


def _folder(file: Path, base: Path) -> str:
    """Return the folders between `base` and `file`: who or what must stay together."""
    return "/".join(file.relative_to(base).parts[:-1])


def picture_files(folder: Path) -> list[Path]:
    """Return the files below `folder` whose names end like pictures, absolute and sorted."""
    found = []
    for place, folders, names in os.walk(folder.resolve()):
        folders.sort()
        here = Path(place)
        found += [here / name for name in sorted(names) if Path(name).suffix.lower() in SUFFIXES and name[0] != "."]
    return found


FindBox = Callable[[Image.Image], Box | None]
"""Finds the face in a picture, or None where there is none."""


def build_catalog(
    candidates: Sequence[Candidate],
    *,
    split: str = "70/15/15",
    seed: int = 42,
    min_sharpness: float = 0.0,
    min_brightness: float = 0.0,
    find_box: FindBox | None = None,
    advance: Advance | None = None,
    known: Mapping[str, Mapping[str, Any]] | None = None,
    remember: Callable[[Mapping[str, Any]], None] | None = None,
) -> Catalog:
    """Scan `candidates`, leave out what can't be used, and draw the splits.

    Args:
        candidates: files with what is known of them.
        split: shares, as Share.parse reads them.
        seed: of the draw.
        min_sharpness: variance of the Laplacian under which a picture counts as blurred.
        min_brightness: mean grey level (0 to 255) under which a picture counts as dark.
        find_box: finds the face; pictures without one are left out. None: the whole picture is the face.
        advance: told of every file that is done.
        known: findings of an earlier, interrupted scan by path.
        remember: given every new finding, to keep for the next scan.

    Raises:
        DataError: the same picture has two labels, or a class is left empty.
    """
    share = Share.parse(split)
    faces: list[FaceRecord] = []
    left_out: list[Quarantined] = []
    contents: dict[Path, str] = {}
    known = known or {}

    def scan(candidate: Candidate) -> Mapping[str, Any]:
        before = known.get(str(candidate.path))
        return before if before and before["stamp"] == _stamp(candidate.path) else _scan(candidate.path, find_box)

    for candidate, found in zip(candidates, ordered_map(scan, candidates), strict=True):
        if remember and found is not known.get(str(candidate.path)):
            remember(found)
        reason = found["reason"] or _too_poor(found, min_sharpness, min_brightness)
        if reason:
            left_out.append(Quarantined(candidate.path, reason, broken="width" not in found))
        else:
            faces.append(_face(candidate, found))
            contents[candidate.path] = found["pixels"]
        if advance:
            advance(1)
    faces, doubles = _without_doubles(faces, contents)
    faces, leaks = _without_leaks(faces)
    quarantine = (*left_out, *doubles, *leaks)
    _check_classes(faces, quarantine)
    return Catalog(tuple(draw_splits(faces, share, seed)), quarantine)


def _too_poor(found: Mapping[str, Any], min_sharpness: float, min_brightness: float) -> str:
    if found["sharpness"] < min_sharpness:
        return f"blurred (sharpness {found['sharpness']:.1f}, at least {min_sharpness:g} is asked for)"
    if found["brightness"] < min_brightness:
        return f"dark (mean grey level {found['brightness']:.1f}, at least {min_brightness:g} is asked for)"
    return ""


def _face(candidate: Candidate, found: Mapping[str, Any]) -> FaceRecord:
    box = found["box"]
    return FaceRecord(
        path=candidate.path,
        label=candidate.label,
        split=candidate.split,
        source=candidate.source,
        generator=candidate.generator,
        identity=candidate.identity,
        box=(box[0], box[1], box[2], box[3]) if box else None,
        sha256=found["sha256"],
        phash=found["phash"],
        width=found["width"],
        height=found["height"],
        sharpness=found["sharpness"],
    )


def _stamp(path: Path) -> list[int]:
    try:
        status = path.stat()
    except OSError:
        return [0, 0]
    return [status.st_size, status.st_mtime_ns]


def _scan(path: Path, find_box: FindBox | None) -> dict[str, Any]:
    """Return what a picture's file tells, as plain values; `reason` says why it can't be used, or is empty."""
    found: dict[str, Any] = {"path": str(path), "stamp": _stamp(path), "reason": ""}
    try:
        picture = read_picture(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except PictureError as error:
        return {**found, "reason": str(error).removeprefix(f"{path}: ")}
    except OSError as error:
        return {**found, "reason": f"can't be read ({error.strerror or error})"}
    found.update(width=picture.width, height=picture.height)
    if min(picture.size) < MIN_SIDE:
        return {**found, "reason": f"too small ({picture.width}×{picture.height}, {MIN_SIDE} pixels a side are needed)"}
    box = find_box(picture) if find_box else None
    if find_box and box is None:
        return {**found, "reason": "no face found in it"}
    grey = np.asarray(picture.convert("L"))
    measured = {"sharpness": round(float(cv2.Laplacian(grey, cv2.CV_64F).var()), 2), "brightness": float(grey.mean())}
    pixels = hashlib.sha256(picture.tobytes()).hexdigest()
    hashes = {"sha256": digest, "pixels": pixels, "phash": perceptual_hash(picture)}
    return {**found, **measured, **hashes, "box": box}


def perceptual_hash(picture: Image.Image) -> str:
    """Return 64 bits as 16 hexadecimal digits: signs of the low frequencies of a 32×32 grey thumbnail.

    Source: Zauner 2010, "Implementation and Benchmarking of Perceptual Image Hash Functions" (DCT hash).
    """
    thumbnail = picture.convert("L").resize((32, 32), Image.Resampling.BOX, reducing_gap=2)
    low = dctn(np.asarray(thumbnail, dtype=np.float64))[:8, :8].ravel()
    bits = low > np.median(low[1:])
    return f"{int(''.join('1' if bit else '0' for bit in bits), 2):016x}"


def _without_doubles(
    faces: Sequence[FaceRecord], contents: Mapping[Path, str]
) -> tuple[list[FaceRecord], list[Quarantined]]:
    """Leave out pictures whose `contents` (a digest of the pixels) are those of another."""
    first: dict[str, FaceRecord] = {}
    doubles = []
    for face in faces:
        before = first.setdefault(contents[face.path], face)
        if before.label != face.label:
            raise DataError(f"{before.path} and {face.path} are the same picture, once real and once fake; remove one")
        if before is not face:
            doubles.append(Quarantined(face.path, f"the same picture as {before.path}"))
    return list(first.values()), doubles


def _without_leaks(faces: Sequence[FaceRecord]) -> tuple[list[FaceRecord], list[Quarantined]]:
    """Leave out what belongs together with a face of a later split, where the folders name the splits."""
    last: dict[str, FaceRecord] = {}
    groups = group_faces(faces) if any(face.split for face in faces) else [""] * len(faces)
    for face, group in zip(faces, groups, strict=True):
        last[group] = max(last.get(group, face), face, key=lambda other: SPLITS.index(other.split or SPLITS[0]))
    kept, leaks = [], []
    for face, group in zip(faces, groups, strict=True):
        if face.split == last[group].split or not face.split:
            kept.append(face)
        else:
            leaks.append(Quarantined(face.path, f"belongs together with {last[group].path} in {last[group].split}"))
    return kept, leaks


def _check_classes(faces: Sequence[FaceRecord], left_out: Sequence[Quarantined]) -> None:
    counts = Counter(face.label for face in faces)
    for label, name in enumerate(LABELS):
        if not counts[label]:
            why = (
                f"; the first of {len(left_out)} left out: {left_out[0].path} ({left_out[0].reason})"
                if left_out
                else ""
            )
            raise DataError(f"no {name} face can be used{why}")


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
    """Return for each face the name of its group: one identity, and whatever nearly duplicates one of it."""
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
