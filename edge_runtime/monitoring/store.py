"""The monitor's folder: a summary of each hour for a year, the latest faces, and the state for other programs."""

import io
import json
import logging
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from edge_runtime.atomic import write_atomic
from edge_runtime.monitoring.summary import Summary

log = logging.getLogger("edge_runtime")

STATUS = "status.json"
RECENT = "recent.npz"
KEPT_HOURS = 366 * 24
KEPT_BYTES = 100_000_000
UNREADABLE = (
    *(OSError, ValueError, KeyError, TypeError, EOFError, StopIteration, MemoryError),
    # Of zip files with flipped bits: unknown methods and versions, encryption, and damaged streams.
    *(RuntimeError, zipfile.BadZipFile, zlib.error),
)


class Store:
    """Reads and writes the monitor's folder. Files are replaced atomically, so that a power cut leaves whole ones.

    Args:
        folder: is created.
        key: what the summaries can be compared with: those of another key are left alone.

    Raises:
        OSError: the folder can't be made.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self._key, self._hours = folder, key[:12], folder / "hours"
        self._hours.mkdir(parents=True, exist_ok=True)

    def hour_path(self, hour: datetime) -> Path:
        """Return the file of the hour that begins at `hour`, UTC."""
        return self._hours / f"{hour:%Y-%m-%dT%H}-{self._key}.npz"

    def hours(self) -> list[Path]:
        """Return the files of all hours, oldest first."""
        return sorted(path for path in self._hours.glob("*.npz") if re.match(r"\d{4}-\d\d-\d\dT\d\d-", path.name))

    def load_hour(self, hour: datetime, width: int) -> Summary:
        """Return what is kept of an hour; an empty summary if there is nothing."""
        found = self._load(self.hour_path(hour), width)
        return found[0] if found else Summary(width)

    def save_hour(self, hour: datetime, summary: Summary) -> None:
        """Replace the summary of an hour; raises OSError if it can't be written."""
        write_atomic(self.hour_path(hour), packed([summary]))

    def load_recent(self, width: int) -> list[Summary]:
        """Return the blocks of the latest faces, oldest first; none if there are none."""
        return self._load(self.folder / RECENT, width)

    def save_recent(self, blocks: Sequence[Summary]) -> None:
        """Replace the blocks of the latest faces; raises OSError if they can't be written."""
        write_atomic(self.folder / RECENT, packed(blocks, self._key))

    def load_status(self) -> dict[str, Any]:
        """Return the status as written; empty if there is none for this key."""
        try:
            values = json.loads((self.folder / STATUS).read_text(encoding="utf-8"))
            return values if values["reference"] == self._key else {}
        except UNREADABLE:
            return {}

    def save_status(self, values: Mapping[str, Any]) -> None:
        """Replace the status; raises OSError if it can't be written."""
        text = json.dumps({**values, "reference": self._key}, indent=2, ensure_ascii=False)
        # Other users' programs may read it; it holds no faces.
        write_atomic(self.folder / STATUS, text + "\n")

    def prune(self) -> None:
        """Keep the latest KEPT_HOURS hours and KEPT_BYTES bytes; raises OSError if that fails.

        Hours are counted, not compared with the clock, because a wrong clock would otherwise delete a year of
        summaries.
        """
        size, hours = 0, set()
        for path in reversed(self.hours()):
            size += path.stat().st_size
            hours.add(path.name[: len("2026-05-04T12")])
            if len(hours) > KEPT_HOURS or size > KEPT_BYTES:
                path.unlink()

    def _load(self, path: Path, width: int) -> list[Summary]:
        try:
            with np.load(path) as file:
                if str(file["key"]) not in ("", self._key):
                    return []
                found = [
                    Summary.from_arrays({name: file[f"{name}_{block}"] for name in Summary(1).to_arrays()})
                    for block in range(int(file["blocks"]))
                ]
        except FileNotFoundError:
            return []
        except UNREADABLE as error:
            log.warning(f"{path}: can't be read ({error}); starting over")
            return []
        return found if all(summary.width == width for summary in found) else []


def packed(blocks: Sequence[Summary], key: str = "") -> bytes:
    """Return summaries as the bytes of an .npz file."""
    arrays = {f"{name}_{i}": value for i, block in enumerate(blocks) for name, value in block.to_arrays().items()}
    file = io.BytesIO()
    np.savez_compressed(file, key=key, blocks=len(blocks), **arrays)
    return file.getvalue()


def hour_of(time: datetime) -> datetime:
    """Return the beginning of the hour of `time`, UTC."""
    return time.astimezone(timezone.utc).replace(minute=0, second=0, microsecond=0)
