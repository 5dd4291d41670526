"""Keeps a run from overwriting what it reads, and from reading what it writes."""

import stat
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

from edge_runtime.errors import UsageError
from edge_runtime.model.bundle import BUNDLE_SIGNATURE, MANIFEST, Bundle
from edge_runtime.pixels.file_types import SUFFIXES
from edge_runtime.sinks.disk import KEPT, numbered
from edge_runtime.sources import Source


def check_places(outputs: Iterable[Path], folders: Sequence[Path], sources: Iterable[Source], bundle: Bundle) -> None:
    """Refuse outputs that are inputs, whether named by path, link, glob or folder.

    Raises:
        UsageError: an output is an input or given twice, or pictures in `folders` would be judged or deleted as inputs.
    """
    files = [path for path in outputs if str(path) != "-" and (path.is_file() or not path.exists())]
    places = [path.resolve() for path in files]
    if len(set(places)) < len(places):
        raise UsageError(f"{files[-1]}: given for two outputs; choose another file for one")
    if not files and not folders:
        return
    rotated = (numbered(path, number) for path in files for number in range(1, KEPT + 1))
    written = {identity: path for path in (*files, *rotated) if (identity := _identity(path)) is not None}
    homes = {folder.resolve(): folder for folder in folders}
    if len(homes) < len(folders):
        raise UsageError(f"{folders[-1]}: given for two outputs; choose another folder for one")
    checked: set[tuple[Path, bool]] = set()
    model = (bundle.path / name for name in (MANIFEST, BUNDLE_SIGNATURE, *bundle.manifest.files))
    for path in chain(model, *(source.files() for source in sources)):
        if (identity := _identity(path)) in written:
            raise UsageError(f"{written[identity]}: is also an input ({path}); choose another file")
        # Everything below an input folder is read; of a folder that merely contains an input, only that input.
        is_folder = path.is_dir()
        folder = path if is_folder else path.parent
        if (folder, is_folder) in checked:
            continue
        checked.add((folder, is_folder))
        inside = folder.resolve()
        for home, given in homes.items():
            if home == inside or (is_folder and inside in home.parents):
                raise UsageError(f"{given}: pictures there would mix with inputs ({path}); choose another folder")
        if is_folder and any(inside in place.parents and place.suffix.lower() in SUFFIXES for place in places):
            raise UsageError(f"{path}: an output in it is named as a picture and would be read; choose another name")


def _identity(path: Path) -> tuple[int, int] | None:
    """Return device and inode of a regular file or a folder, with links resolved; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    regular = stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)
    return (found.st_dev, found.st_ino) if regular else None
