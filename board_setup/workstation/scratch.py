"""Temporary folders that a killed run does not leave behind for good."""

import contextlib
import fcntl
import glob
import os
import shutil
import tempfile
import time
from typing import Iterator

PREFIX = "setup-board-"
YOUNG_S = 60.0


@contextlib.contextmanager
def scratch_folder() -> Iterator[str]:
    """Yield an empty folder, removed afterwards; those of this user's killed runs are removed first.

    A run holds a lock (flock(2)) on its folder, which the kernel releases when the process ends.
    """
    for left in glob.glob(os.path.join(tempfile.gettempdir(), PREFIX + "*")):
        with contextlib.suppress(OSError), _locked(left):
            seen = os.stat(left)
            # A run that has just started may not hold its lock yet.
            if seen.st_uid == os.geteuid() and time.time() - seen.st_mtime > YOUNG_S:
                shutil.rmtree(left, ignore_errors=True)
    folder = tempfile.mkdtemp(prefix=PREFIX)
    with _locked(folder):
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: str) -> Iterator[None]:
    """Hold the lock on a folder; BlockingIOError if another process holds it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
