"""Temporary folders that do not pile up: what a killed run left behind, the next run removes."""

import contextlib
import fcntl
import os
import shutil
import tempfile
import weakref
from pathlib import Path

PREFIX = "deepfake-edge-scratch-"


class ScratchFolder:
    """An empty temporary folder at `path`, removed with the `with` block or with this object.

    A running process holds a lock on its folder; one that nobody holds belongs to a killed run and is removed first. A
    lock ends with its process and is seen across containers, unlike a process id.
    """

    def __init__(self) -> None:
        for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
            # Folders of other users can't be opened, and others vanish meanwhile.
            with contextlib.suppress(OSError):
                _remove(folder, _lock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB))
        descriptor = -1
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
            try:
                descriptor = _lock(self.path, fcntl.LOCK_EX)
                if self.path.exists():
                    break
                os.close(descriptor)
            except FileNotFoundError:
                pass  # Another run took it for abandoned before the lock was on it.
            except OSError:
                break  # A file system without locks: no run removes it.
        self._remove = weakref.finalize(self, _remove, self.path, descriptor)

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *error: object) -> None:
        self._remove()


def _lock(folder: Path, kind: int) -> int:
    """Lock `folder` and return the descriptor that holds the lock."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, kind)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _remove(folder: Path, descriptor: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        os.close(descriptor)
