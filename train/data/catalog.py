"""What is known of faces, and the catalog that holds it: a CSV file and a list of what was left out."""

import csv
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from edge_runtime.errors import DataError
from edge_runtime.model.contract import LABELS
from edge_runtime.pixels.boxes import Box

CATALOG = "catalog.csv"
QUARANTINE = "quarantine.csv"
SPLITS = ("train", "valid", "test")
SHARES = "70/15/15"
"""Percent of the faces in train, valid and test where a command is not told otherwise."""

SEED = 42
"""Of every random choice where a command is not told otherwise."""

SHOWN = 5
"""Files that are named one by one on a terminal."""


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


def left_out_lines(files: Sequence[tuple[object, str]]) -> list[str]:
    """Return what a terminal is told of files that were left out, each with its reason: a line for the first ones."""
    lines = [f"left out: {path}: {reason}" for path, reason in files[:SHOWN]]
    return [*lines, f"left out: {len(files) - SHOWN} more"] if len(files) > SHOWN else lines


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
