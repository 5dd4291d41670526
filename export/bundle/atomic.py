"""A folder that is there whole or not at all, whenever the writer is killed."""

import ctypes
import errno
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edge_runtime.errors import UsageError
from edge_runtime.model.bundle import MANIFEST

AT_FDCWD = -100
RENAME_EXCHANGE = 2
"""From Linux's `fcntl.h` and `renameat2(2)`."""


def check_target(target: Path, *, replace: bool) -> None:
    """Check, before any work is done, that a bundle may be written at `target`.

    Raises:
        UsageError: something is there that must not be replaced, or the folder above can't be written.
    """
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise UsageError(f"{target}: is there already and is no folder; choose another --out")
    if target.is_dir() and any(target.iterdir()):
        if not (target / MANIFEST).is_file():
            raise UsageError(f"{target}: is there already and is no bundle; choose another --out")
        if not replace:
            raise UsageError(f"{target}: a bundle is there already; add --replace, or choose another --out")
    above = next(folder for folder in target.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise UsageError(f"{target}: {above} can't be written; choose another --out")


@contextmanager
def folder_in_one_step(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside `target` that takes its place when the block ends, and vanishes if it fails.

    Until the last moment the target is what it was; after it the target is the new folder, complete and on disk. What
    killed writers left beside it is removed.
    """
    target = target.absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(target)
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    partial.mkdir()
    try:
        yield partial
        sync_tree(partial)
        _take_place(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _remove_leftovers(target: Path) -> None:
    pattern = re.compile(re.escape(f".{target.name}.partial-") + r"(\d+)")
    for path in target.parent.iterdir():
        found = pattern.fullmatch(path.name)
        if found and not _alive(int(found[1])):
            shutil.rmtree(path, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return process != os.getpid()


def sync_tree(folder: Path) -> None:
    """Write a folder and all that is in it through to the disk: a rename that outlives a power cut needs it."""
    for path in (folder, *folder.rglob("*")):
        if os.name == "posix" or path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _take_place(partial: Path, target: Path) -> None:
    if not target.exists() or (not any(target.iterdir()) and os.name == "posix"):
        partial.rename(target)
    elif not _exchange(partial, target):
        # No system call swaps two folders here: between these two lines the old bundle has the leftover's name.
        aside = partial.with_name(f"{partial.name}-old")
        target.rename(aside)
        partial.rename(target)
        shutil.rmtree(aside, ignore_errors=True)
    with suppress(OSError):
        _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two folders in one step; False where the system has no way to."""
    if not sys.platform.startswith("linux"):
        return False
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    if renameat2(AT_FDCWD, os.fsencode(first), AT_FDCWD, os.fsencode(second), RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS):
        return False
    raise OSError(code, os.strerror(code), str(second))
