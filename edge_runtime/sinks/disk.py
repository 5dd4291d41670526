"""What all sinks that write files share: names of rotated files, and room on the disk."""

import contextlib
import os
from pathlib import Path

KEPT = 5
"""Rotated files that are kept; the lowest number is the newest."""

SPARE = 16 << 20
"""Bytes that pictures and videos leave free on the disk, for the lines and for the system."""


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
