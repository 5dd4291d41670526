"""Atomic writes: a file is written beside its target, flushed to disk, then renamed over it."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


@contextlib.contextmanager
def atomic_write(path: Path, mode: str = "w", **options: Any) -> Iterator[IO[Any]]:
    """Open a file that takes `path`'s name only when the block ends without an error.

    The partial file has a fixed name, `.NAME.partial`, so that the next write replaces what a killed one left behind.

    Args:
        path: the file; its folder must exist.
        mode: `w` (UTF-8 text) or `wb`.
        options: further arguments of `open`.

    Raises:
        OSError: it can't be written; no partial file is left.
    """
    if "b" not in mode:
        options = {"encoding": "utf-8", **options}
    partial = path.with_name(f".{path.name}.partial")
    try:
        with open(partial, mode, **options) as file:  # noqa: PTH123, since Path.open takes no opener
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def write_atomic(path: Path, data: str | bytes, **options: Any) -> None:
    """Write `data` to `path` atomically; see `atomic_write`."""
    with atomic_write(path, "wb" if isinstance(data, bytes) else "w", **options) as file:
        file.write(data)
