"""What sinks share: names of rotated files, room on the disk, and telling of what could not be written."""

import contextlib
import logging
import os
from pathlib import Path

log = logging.getLogger("edge_runtime")

KEPT = 5
"""Rotated files that are kept; the lowest number is the newest."""

SPARE = 16 << 20
"""Bytes that pictures and videos leave free on the disk, for the lines and for the system."""


class Losses:
    """Counts what a sink could not write; the first loss is told at once, and the first success after it."""

    def __init__(self, name: object) -> None:
        self.count = 0
        self._name, self._since = name, 0

    def add(self, reason: str) -> None:
        """Count one loss."""
        self.count += 1
        self._since += 1
        if self._since == 1:
            log.warning(f"{self._name}: can't be written ({reason}); detection goes on, what is lost is counted")

    def over(self) -> None:
        """Note that something was written."""
        if self._since:
            log.warning(f"{self._name}: written again, {self._since} results were lost")
        self._since = 0


def numbered(path: Path, number: int) -> Path:
    """Return the name of a rotated file: log.jsonl becomes log.1.jsonl, log.2.jsonl and so on."""
    return path.with_name(f"{path.stem}.{number}{path.suffix}")


def rotate(path: Path, kept: int = KEPT) -> None:
    """Rename `path` to its first rotated name, those before it one further; the oldest beyond `kept` is replaced.

    Raises:
        OSError: the folder does not allow it.
    """
    for number in range(kept - 1, 0, -1):
        with contextlib.suppress(FileNotFoundError):
            numbered(path, number).replace(numbered(path, number + 1))
    path.replace(numbered(path, 1))


def has_room(folder: Path, size: int = 0) -> bool:
    """Tell whether `size` bytes fit on the disk of `folder` with SPARE left."""
    try:
        disk = os.statvfs(folder)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize - size >= SPARE
