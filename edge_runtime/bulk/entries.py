"""One picture to judge, and its line in the list of all pictures."""

import json
from dataclasses import dataclass

from edge_runtime.errors import DataError


@dataclass(frozen=True)
class Entry:
    """Where one picture is.

    Attributes:
        path: absolute path or address of the picture, or of the tar shard or Parquet file that holds it.
        member: its name in the shard.
        offset, size: its bytes in the shard.
        row: its row in the Parquet file.
        column: the Parquet column with its bytes; `a.b` is a field of a struct.
        error: why it can't be read, known before anyone tried; else None.
    """

    path: str
    member: str | None = None
    offset: int | None = None
    size: int | None = None
    row: int | None = None
    column: str | None = None
    error: str | None = None

    @property
    def name(self) -> str | None:
        """Its name within `path`; None if `path` is the picture itself."""
        return self.member if self.row is None else str(self.row)

    @property
    def remote(self) -> bool:
        """Whether `path` is an address such as s3://bucket/key."""
        return "://" in self.path

    def line(self) -> str:
        """Return the line: the path alone where that says all, else a JSON object."""
        values = {key: value for key, value in vars(self).items() if value is not None}
        bare = len(values) == 1 and self.path.isprintable() and self.path == self.path.strip()
        return self.path if bare and not self.path.startswith("{") else json.dumps(values)

    @classmethod
    def from_line(cls, line: str) -> "Entry":
        """Read what `line` wrote, or a path or address as a person writes it.

        Raises:
            DataError: it begins with { and is not such a JSON object.
        """
        if not line.startswith("{"):
            return cls(line)
        try:
            entry = cls(**json.loads(line))
        except (ValueError, TypeError, RecursionError):
            raise DataError(f"{line[:80]}: not a line of a list; give a path, an address or a JSON object") from None
        texts = (entry.path, entry.member or "", entry.column or "", entry.error or "")
        numbers = (entry.offset or 0, entry.size or 0, entry.row or 0)
        if not all(isinstance(text, str) for text in texts) or not all(type(n) is int and n >= 0 for n in numbers):
            raise DataError(f"{line[:80]}: a value has the wrong type; give path as text and offset as a number")
        return entry
