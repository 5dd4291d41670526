"""The folders that a simulated year empties: its own ones, which a file in each tells from the user's."""

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from edge_runtime.errors import UsageError

MARK = "simulated-year.txt"
"""This file is in every folder that a year made."""


def check_own(folders: Sequence[Path], inputs: Iterable[Path]) -> None:
    """Check that each of `folders` is missing, empty or a year's own, and that no file of `inputs` is below one.

    Raises:
        UsageError: a folder holds something else, or an input.
    """
    places = {path: (path.parent.resolve(), path.resolve()) for path in inputs}
    for folder in folders:
        if (folder.exists() and not folder.is_dir()) or (
            folder.is_dir() and not (folder / MARK).is_file() and any(folder.iterdir())
        ):
            raise UsageError(f"{folder}: is not of a simulated year, which would empty it; give another --out")
        home = folder.resolve()
        for path, found in places.items():
            if any(place.is_relative_to(home) for place in found):
                raise UsageError(f"{path}: is in {folder}, which the year empties; give another --out")


def own_folder(folder: Path, inputs: Iterable[Path] = (), *, empty: bool = True) -> Path:
    """Return `folder`, made if it is missing, marked as the year's own, and emptied of everything else.

    Raises:
        UsageError: see `check_own`, or it can't be written to.
    """
    check_own([folder], inputs)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARK).write_text("The next simulated year in this place empties this folder.\n", encoding="utf-8")
        for path in folder.iterdir() if empty else ():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != MARK:
                path.unlink()
    except OSError as error:
        raise UsageError(f"{folder}: can't be emptied ({error.strerror}); give another --out") from None
    return folder
