"""The folder that a command writes into."""

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edge_runtime.errors import UsageError
from edge_runtime.paths import expand


def output_folder(out: Path, option: str = "--out") -> Path:
    """Return the folder of `option` with `~` expanded, after a test that it can be written to; nothing is left there.

    Raises:
        UsageError: it can't be written to.
    """
    out = expand(out)
    missing = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise UsageError(f"{option} {out}: can't be written to ({error.strerror}); choose another folder") from None
    finally:
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()
    return out


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""Error numbers of a full disk."""


@contextmanager
def full_disk_reported(out: Path, option: str = "--out") -> Iterator[None]:
    """Turn the error of a full disk into one line.

    Raises:
        UsageError: the disk of `out` is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise UsageError(
            f"{option} {out}: {error.strerror}; make room and run the command again, or choose another folder"
        ) from None
