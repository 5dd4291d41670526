"""The catalog: a CSV file with one line per face, and beside it a list of the files that were left out."""

import csv
import hashlib
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from PIL import Image

from edge_runtime.atomic import atomic_write
from edge_runtime.errors import DataError, PictureError, UsageError
from edge_runtime.model.contract import LABELS
from edge_runtime.paths import expand
from edge_runtime.pixels.boxes import Box
from edge_runtime.pixels.pictures import read_picture
from edge_runtime.printable import printable

CATALOG = "catalog.csv"
QUARANTINE = "quarantine.csv"
SPLITS = ("train", "valid", "test")
SHARES = "70/15/15"
"""Default shares of train, valid and test, in percent."""

SEED = 42
"""Default seed of every random choice."""

NAMED = 5
"""Files that are named one by one on a terminal."""


@dataclass(frozen=True)
class PictureFile:
    """A picture file with what its path says; empty where unknown."""

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
        path: the picture, absolute; in a tar shard, the shard's path and the member's name.
        label: 0 real, 1 fake.
        split: train, valid or test.
        source: the data set it comes from.
        generator: what made it, for a fake.
        identity: the person or video, which must stay in one split; empty where unknown.
        box: the face's left, top, right, bottom in pixels; None for the whole picture.
        sha256: of the file, hexadecimal.
        phash: perceptual hash, 16 hexadecimal digits.
        width, height: of the upright picture, in pixels.
        sharpness: variance of the Laplacian of the grey picture (0 is flat; under about 10 is blurred).
        offset, size: of the picture's bytes in its tar shard; 0 for a file of its own.
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
    offset: int = 0
    size: int = 0

    @property
    def origin(self) -> str:
        """What made the picture: the generator where it is known, otherwise the source."""
        return self.generator or self.source

    def content(self) -> Path | bytes:
        """Return the picture as `read_picture` takes it: its file, or its bytes from a tar shard.

        Raises:
            PictureError: the shard can't be read, or holds something else there.
        """
        if not self.size:
            return self.path
        try:
            with self.path.parent.open("rb") as shard:
                shard.seek(self.offset)
                data = shard.read(self.size)
        except OSError as error:
            raise PictureError(f"can't be read from its shard ({error.strerror})", str(self.path)) from None
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise PictureError("its shard was changed or damaged", str(self.path))
        return data

    def read(self) -> Image.Image:
        """Read the picture as `read_picture` does, also from a tar shard.

        Raises:
            PictureError: it can't be read.
        """
        try:
            return read_picture(self.content())
        except PictureError as error:
            raise type(error)(error.reason, str(self.path)) from None


IN_SHARD = ("offset", "size")
"""Columns of a catalog whose pictures are in tar shards."""

COLUMNS = tuple(field.name for field in fields(FaceRecord) if field.name not in IN_SHARD)


@dataclass(frozen=True)
class Quarantined:
    """A file or folder that was left out, and why; `broken` where it can't be read or its label is wrong.

    It is never deleted.
    """

    path: Path
    reason: str
    broken: bool = False


def left_out_lines(files: Sequence[tuple[object, str]]) -> list[str]:
    """Return lines for a terminal about files that were left out, given as (path, reason): the first few by name."""
    lines = [printable(f"left out: {path}: {reason}") for path, reason in files[:NAMED]]
    return [*lines, f"left out: {len(files) - NAMED} more"] if len(files) > NAMED else lines


@dataclass(frozen=True)
class Catalog:
    """Faces sorted by path, the files that were left out, and the sources and generators that were left out by name."""

    records: tuple[FaceRecord, ...]
    quarantine: tuple[Quarantined, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """SHA-256 over contents, labels and splits; where the files lie does not matter."""
        lines = sorted(f"{face.sha256} {face.label} {face.split}\n" for face in self.records)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def split(self, name: str) -> tuple[FaceRecord, ...]:
        """Return the faces of split `name`, or every face for `all`."""
        if name != "all" and name not in SPLITS:
            raise DataError(f"{name}: unknown split; choose one of {', '.join(SPLITS)}, all")
        return tuple(face for face in self.records if name in (face.split, "all"))

    def leaving_out(self, names: Sequence[str]) -> "Catalog":
        """Return the catalog without the faces of the sources and generators in `names`.

        Raises:
            UsageError: the catalog has no such source or generator.
        """
        known = {name for face in self.records for name in (face.source, face.generator) if name}
        for name in names:
            if name not in known:
                listed = f"choose from {', '.join(sorted(known))}" if known else "the catalog names none"
                raise UsageError(f"--leave-out {name}: not a source or generator of the catalog; {listed}")
        kept = (face for face in self.records if not {face.source, face.generator} & set(names))
        return replace(self, records=tuple(kept), left_out=(*self.left_out, *names))

    def write(self, path: Path | str) -> None:
        """Write the catalog, and beside it the quarantine list if something was left out.

        Paths inside the catalog's folder are written relative to it, so that the folder can be moved.
        """
        path = expand(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        root = path.parent.resolve()
        sharded = any(face.size for face in self.records)
        head = COLUMNS + IN_SHARD if sharded else COLUMNS
        _write_csv(path, head, (catalog_row(face, root)[: len(head)] for face in self.records))
        if self.quarantine:
            rows = ([str(file.path), file.reason] for file in self.quarantine)
            _write_csv(path.with_name(QUARANTINE), ["path", "reason"], rows)

    @classmethod
    def read(cls, path: Path | str) -> "Catalog":
        """Read what `write` wrote, or the same table as a spreadsheet saves it (with a byte order mark).

        Raises:
            DataError: the file is missing, or a line of it is damaged.
        """
        path = expand(path)
        try:
            text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
        except OSError as error:
            raise DataError(f"{path}: can't be read ({error.strerror or error}); run prepare-faces") from None
        root = path.parent.resolve()
        reader = csv.DictReader(io.StringIO(text, newline=""))
        faces: list[FaceRecord] = []
        try:
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise ValueError(f"no column {', '.join(missing)}")
            faces.extend(_record(row, root) for row in reader)
        except (csv.Error, ValueError, TypeError, AttributeError) as error:
            line = max(reader.line_num, 1)
            raise DataError(
                f"{path}:{line}: not a line of a catalog ({error!s:.200}); run prepare-faces again"
            ) from None
        return cls(tuple(faces))


def _write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with atomic_write(path, errors="surrogateescape", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        writer.writerows(rows)


def box_text(box: Box | None) -> str:
    """Return a box as a catalog has it, to six digits; empty for None."""
    return " ".join(f"{edge:g}" for edge in box) if box else ""


def catalog_row(face: FaceRecord, root: Path) -> list[str]:
    """Return a face's values of COLUMNS and IN_SHARD as text; its path is relative to `root` where it lies below."""
    path = face.path.relative_to(root) if face.path.is_relative_to(root) else face.path
    values = (str(path), LABELS[face.label], face.split, face.source, face.generator, face.identity, box_text(face.box))
    numbers = (face.sha256, face.phash, face.width, face.height, f"{face.sharpness:.2f}", face.offset, face.size)
    return [*values, *map(str, numbers)]


def _record(row: Mapping[str, str], root: Path) -> FaceRecord:
    """Return the face of a line; raise ValueError, TypeError or AttributeError if it is damaged."""
    if row["split"] not in SPLITS:
        raise ValueError(f"split {row['split']!r}")
    if not row["path"] or "\0" in row["path"]:
        raise ValueError(f"path {row['path']!r}")
    if row["phash"] and not 0 <= int(row["phash"], 16) < 1 << 64:
        raise ValueError(f"phash {row['phash']!r}")
    box = None
    if row["box"]:
        left, top, right, bottom = (float(edge) for edge in row["box"].split())
        if not (math.isfinite(left + top + right + bottom) and left < right and top < bottom):
            raise ValueError(f"box {row['box']!r}")
        box = (left, top, right, bottom)
    face = FaceRecord(
        path=root / row["path"],
        label=LABELS.index(row["label"]),
        split=row["split"],
        source=row["source"],
        generator=row["generator"],
        identity=row["identity"],
        box=box,
        sha256=row["sha256"],
        phash=row["phash"],
        width=int(row["width"]),
        height=int(row["height"]),
        sharpness=float(row["sharpness"]),
        offset=int(row.get("offset") or 0),
        size=int(row.get("size") or 0),
    )
    if min(face.width, face.height, face.offset, face.size) < 0 or not math.isfinite(face.sharpness):
        raise ValueError(f"width {face.width}, height {face.height}, sharpness {face.sharpness}")
    return face
