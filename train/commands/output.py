"""The folder that a command writes into."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_runtime.errors import UsageError


def output_folder(out: Path) -> Path:
    """Return `--out` with `~` expanded; called before a command's long work. The folder is not made.

    Raises:
        UsageError: it can't be written to.
    """
    out = out.expanduser()
    place = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not place.is_dir():
        raise UsageError(f"--out {out}: {place} is not a directory; choose another folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise UsageError(f"--out {out}: {place} can't be written to; choose another folder")
    return out


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""Errors of a disk that takes no more data."""


@contextmanager
def full_disk_reported(out: Path) -> Iterator[None]:
    """Turn the error of a full disk into one line.

    Raises:
        UsageError: `out` takes no more data.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise UsageError(
            f"--out {out}: {error.strerror}; make room and run the command again, or choose another folder"
        ) from None
