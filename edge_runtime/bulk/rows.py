"""The rows of a part's Parquet file, the file's metadata, and what the command counts."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from edge_runtime.bulk.entries import Entry
from edge_runtime.judging.results import FrameResult
from edge_runtime.plain_json import plain
from edge_runtime.printable import printable

_NAMES = pa.dictionary(pa.int32(), pa.string())

SCHEMA = pa.schema(
    [
        pa.field("picture", pa.string(), nullable=False),
        pa.field("member", pa.string()),
        pa.field("face", pa.int32()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        *(pa.field(side, pa.int32()) for side in ("left", "top", "right", "bottom")),
        pa.field("detection", pa.float32()),
        pa.field("score", pa.float64()),
        pa.field("verdict", _NAMES),
        pa.field("reason", _NAMES),
        pa.field("unreadable", _NAMES),
        pa.field("error", pa.string()),
    ]
)
"""One row for each face, one for a picture without faces, one for a picture that can't be read; see docs/scale.md."""


class Unreadable(str, Enum):
    """Why a picture can't be read."""

    MISSING = "missing"
    DENIED = "denied"
    UNREACHABLE = "unreachable"
    NOT_A_PICTURE = "not_a_picture"
    TOO_LARGE = "too_large"
    BROKEN = "broken"
    NOT_LISTED = "not_listed"


@dataclass
class Counts:
    """What a part holds, or all of them.

    Attributes:
        pictures: how many were judged, unreadable ones included.
        rows: in the Parquet files.
        faces: how many were found.
        without_face: pictures without any.
        verdicts: faces by verdict.
        unreadable: pictures that can't be read, by kind.
    """

    pictures: int = 0
    rows: int = 0
    faces: int = 0
    without_face: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    unreadable: Counter[str] = field(default_factory=Counter)

    def add(self, other: "Counts") -> None:
        """Add those of another part."""
        for name in ("pictures", "rows", "faces", "without_face"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.verdicts.update(other.verdicts)
        self.unreadable.update(other.unreadable)

    @classmethod
    def from_json(cls, text: str | bytes) -> "Counts":
        """Read them from a file's metadata; raises ValueError, KeyError or TypeError if they aren't there."""
        values = json.loads(text)
        return cls(**{**values, "verdicts": Counter(values["verdicts"]), "unreadable": Counter(values["unreadable"])})


class Rows:
    """Collects the rows of one part."""

    def __init__(self) -> None:
        self.counts = Counts()
        self._columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}

    def add(self, entry: Entry, result: FrameResult, kind: Unreadable | None) -> None:
        """Add the rows of one picture; `kind` says why it can't be read."""
        counts, shared = self.counts, dict[str, Any]()
        shared |= {"picture": printable(entry.path), "member": entry.name and printable(entry.name)}
        counts.pictures += 1
        if kind is not None:
            counts.unreadable[kind.value] += 1
            self._append({**shared, "unreadable": kind.value, "error": result.error})
            return
        shared |= {"width": result.width, "height": result.height}
        counts.faces += len(result.faces)
        counts.without_face += not result.faces
        for number, face in enumerate(result.faces):
            counts.verdicts[face.verdict.value] += 1
            values = {
                "face": number,
                "detection": face.detection,
                "score": None if face.score is None else round(face.score, 6),
                "verdict": face.verdict.value,
                "reason": face.reason_code and face.reason_code.value,
            }
            self._append(shared | values | dict(zip(("left", "top", "right", "bottom"), face.box, strict=True)))
        if not result.faces:
            self._append(shared)

    def _append(self, values: Mapping[str, Any]) -> None:
        self.counts.rows += 1
        for name, column in self._columns.items():
            column.append(values.get(name))

    def parquet(self, metadata: Mapping[str, str]) -> bytes:
        """Return the Parquet file, with `metadata` and the counts in it."""
        entries = {**metadata, "counts": json.dumps(plain(self.counts))}
        table = pa.table(self._columns, schema=SCHEMA).replace_schema_metadata(entries)
        out = pa.BufferOutputStream()
        pq.write_table(table, out, compression="zstd")
        return out.getvalue().to_pybytes()
