"""What sinks share: rotated files, free space on the disk, and counting what could not be written."""

import contextlib
import logging
import os
from pathlib import Path

log = logging.getLogger("edge_runtime")

KEPT = 5
"""Rotated files that are kept; the lowest number is the newest."""

SPARE = 16 << 20
"""Bytes that pictures and videos leave free on the disk, for the lines and the system."""


class Losses:
    """Counts what a sink could not write, and logs the first loss and the first success after it."""

    def __init__(self, name: object) -> None:
        self.count = 0
        self._name, self._since = name, 0

    def add(self, reason: str) -> None:
        """Count one loss."""
        self.count += 1
        self._since += 1
        if self._since == 1:
            log.warning(f"{self._name}: can't be written ({reason}); detection continues, lost results are counted")

    def over(self) -> None:
        """Note that something was written."""
        if self._since:
            log.warning(f"{self._name}: can be written again, lost so far: {self._since}")
        self._since = 0


def numbered(path: Path, number: int) -> Path:
    """Return the name of a rotated file: log.jsonl becomes log.1.jsonl, log.2.jsonl and so on."""
    return path.with_name(f"{path.stem}.{number}{path.suffix}")


def rotate(path: Path) -> None:
    """Rename `path` to its first rotated name and each rotated file to the next; the oldest is replaced.

    Raises:
        OSError: the folder does not allow it.
    """
    # If the file is gone, nothing else may move: the oldest would be lost for nothing.
    path.stat()
    for number in range(KEPT - 1, 0, -1):
        with contextlib.suppress(FileNotFoundError):
            numbered(path, number).replace(numbered(path, number + 1))
    path.replace(numbered(path, 1))


def has_room(folder: Path, size: int = 0) -> bool:
    """Return whether `size` bytes fit on the disk of `folder` with SPARE left."""
    try:
        disk = os.statvfs(folder)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize - size >= SPARE
