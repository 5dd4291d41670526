"""Cuts the list of pictures into parts, and says which of them are done."""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from edge_runtime.bulk.entries import Entry
from edge_runtime.bulk.rows import Counts
from edge_runtime.bulk.storage import locate, repeated
from edge_runtime.model.bundle import MANIFEST, Bundle, sha256

PART_SIZE = 10_000
"""Pictures of a part."""

DIGITS = 16
"""Hexadecimal digits of a SHA-256 that names a part: two of 10⁵ parts share one with a chance of 10⁻¹⁰."""


@dataclass(frozen=True)
class Settings:
    """How pictures are judged; see `Detector`. They are part of a part's name."""

    device: str = "AUTO"
    precision: str = "auto"
    faces: str = "auto"
    min_face: int = 0
    careful: bool = False


@dataclass(frozen=True)
class Job:
    """What every worker must know.

    Attributes:
        bundle: absolute path of the bundle's folder, the same on every machine.
        model: its version.
        model_sha256: of its model.json, which holds the SHA-256 of every other file.
        settings: how pictures are judged.
        threads: of the network, in each worker.
        out: folder or address of the parts.
    """

    bundle: str
    model: str
    model_sha256: str
    settings: Settings
    threads: int
    out: str

    @classmethod
    def of(cls, bundle: Bundle, settings: Settings, *, threads: int, out: str) -> "Job":
        """Return the job for an opened bundle."""
        folder = bundle.path.resolve()
        return cls(str(folder), bundle.contract.version, sha256(folder / MANIFEST), settings, threads, out)

    def file_name(self, list_sha256: str) -> str:
        """Return the name of a part's file."""
        judged_by = json.dumps([self.model_sha256, asdict(self.settings)], sort_keys=True)
        model = hashlib.sha256(judged_by.encode()).hexdigest()
        return f"part-{list_sha256[:DIGITS]}-{model[:DIGITS]}.parquet"


@dataclass(frozen=True)
class Part:
    """A piece of the list: its number, counted from 0, its lines and their SHA-256."""

    number: int
    lines: tuple[str, ...]
    list_sha256: str


@dataclass(frozen=True)
class _Piece:
    """Where a part's lines are in the list: bytes, number of lines, and SHA-256."""

    start: int
    size: int
    pictures: int
    sha256: str


class PictureList:
    """The list of all pictures, in a file that has no name and ends with the process.

    Args:
        folder: where the file lies; None is the folder for temporary files.
        part_size: pictures of a part.
        share: (k, n) keeps only the parts whose number leaves k when divided by n.

    Attributes:
        pieces: where the parts that are kept lie in the file.
        pictures: how many they hold.
        listed: how many all parts hold.
    """

    def __init__(
        self,
        entries: Iterable[Entry],
        part_size: int = PART_SIZE,
        folder: str | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115, closed with this object
        self.pieces: list[_Piece] = []
        self.pictures = self.listed = 0
        seen: set[str] = set()
        lines: list[bytes] = []

        def cut() -> None:
            data = b"".join(lines)
            digest = hashlib.sha256(data).hexdigest()
            # The same pictures again: one file would stand for both.
            if digest not in seen:
                self.listed += len(lines)
                if len(seen) % share[1] == share[0]:
                    self.pieces.append(_Piece(self._file.tell(), len(data), len(lines), digest))
                    self._file.write(data)
                    self.pictures += len(lines)
            seen.add(digest)
            lines.clear()

        for entry in entries:
            lines.append(entry.line().encode("utf-8", "surrogateescape") + b"\n")
            if len(lines) >= part_size:
                cut()
        if lines:
            cut()
        self._file.flush()

    def part(self, number: int) -> Part:
        """Read a part."""
        piece = self.pieces[number]
        data = os.pread(self._file.fileno(), piece.size, piece.start)
        return Part(number, tuple(data.decode("utf-8", "surrogateescape").split("\n")[:-1]), piece.sha256)

    def lines(self) -> Iterator[bytes]:
        """Yield the whole list in blocks of lines."""
        for piece in self.pieces:
            yield os.pread(self._file.fileno(), piece.size, piece.start)


def done_counts(job: Job, list_sha256: str, pictures: int) -> Counts | None:
    """Return the counts of a part's file; None if it is missing, cut off, or has not all rows."""
    address = f"{job.out}/{job.file_name(list_sha256)}"

    def read() -> pq.FileMetaData:
        system, path = locate(address)
        with system.open_input_file(path) as file:
            return pq.ParquetFile(file).metadata

    with contextlib.suppress(FileNotFoundError, pa.ArrowInvalid, ValueError, KeyError, TypeError):
        found = repeated(read, address)
        counts = Counts.from_json(found.metadata[b"counts"])
        if (found.num_rows, pictures) == (counts.rows, counts.pictures):
            return counts
    return None
