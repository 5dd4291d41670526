"""Keeps a run from overwriting what it reads, and from reading what it writes."""

import stat
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

from edge_runtime.errors import UsageError
from edge_runtime.model.bundle import MANIFEST, Bundle
from edge_runtime.sinks.disk import KEPT, numbered
from edge_runtime.sources import Source


def check_places(outputs: Iterable[Path], snapshots: Path | None, sources: Iterable[Source], bundle: Bundle) -> None:
    """Refuse outputs that are inputs, whether named by path, link, glob or folder.

    Args:
        outputs: files to write, which may be rotated.
        snapshots: folder for snapshots.
        sources: what is judged.
        bundle: what judges.

    Raises:
        UsageError: an output is an input or given twice, or snapshots would be judged or deleted as inputs.
    """
    written: dict[tuple[int, int], Path] = {}
    given: set[Path] = set()
    for path in outputs:
        if str(path) == "-" or (path.exists() and not path.is_file()):
            continue
        if path.resolve() in given:
            raise UsageError(f"{path}: given for two outputs; choose another file for one")
        given.add(path.resolve())
        for name in (path, *(numbered(path, number) for number in range(1, KEPT + 1))):
            if (identity := _identity(name)) is not None:
                written[identity] = name
    if snapshots is None and not written:
        return
    own = (bundle.path / name for name in (MANIFEST, *bundle.manifest.files))
    checked: set[Path] = set()
    for path in chain(own, *(source.files() for source in sources)):
        if (identity := _identity(path)) in written:
            raise UsageError(f"{written[identity]}: is also an input ({path}); choose another file")
        is_folder = path.is_dir()
        folder = path if is_folder else path.parent
        if snapshots is not None and (is_folder or folder not in checked):
            checked.add(folder)
            home = snapshots.resolve()
            if folder.resolve() in ((home, *home.parents) if is_folder else (home,)):
                raise UsageError(f"{snapshots}: snapshots there would mix with inputs ({path}); choose another folder")


def _identity(path: Path) -> tuple[int, int] | None:
    """Return device and inode of a regular file or a folder, with links resolved; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    regular = stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)
    return (found.st_dev, found.st_ino) if regular else None
