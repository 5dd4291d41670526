"""The folder that a command writes into."""

import os
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
