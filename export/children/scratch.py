"""Temporary folders that do not pile up: what a killed run left behind, the next run removes."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

PREFIX = "deepfake-edge-scratch-"


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield an empty temporary folder, removed at the end of the block.

    A running process holds a lock on its folder; folders without one belong to killed runs and are removed first. A
    lock ends with its process and is seen across containers, unlike a process id.
    """
    _remove_abandoned(Path(tempfile.gettempdir()))
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        descriptor = _lock(folder, fcntl.LOCK_EX)
        if folder.exists():
            break
        # Another run took it for abandoned before the lock was on it.
        _close(descriptor)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _close(descriptor)


def _lock(folder: Path, kind: int) -> int | None:
    """Lock `folder` and return the descriptor that holds the lock, or None where the file system has no locks."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, kind)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _close(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)


def _remove_abandoned(temporary: Path) -> None:
    for folder in temporary.glob(f"{PREFIX}*"):
        # Other users' folders can't be opened; others vanish meanwhile.
        with contextlib.suppress(OSError):
            descriptor = _lock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if descriptor is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(descriptor)
