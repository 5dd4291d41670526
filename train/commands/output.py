"""The folder that a command writes into."""

import tempfile
from pathlib import Path

from edge_runtime.errors import UsageError


def output_folder(out: Path) -> Path:
    """Return `--out` with `~` expanded, made if it is missing; called before a command's long work.

    Raises:
        UsageError: nothing can be written there.
    """
    out = out.expanduser()
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            return out
    except OSError as error:
        raise UsageError(f"--out {out}: can't be written to ({error.strerror or error}); choose another folder") from None
