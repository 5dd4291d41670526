"""Replaces a folder atomically, even if the writer is killed, and never deletes files that are not a bundle's."""

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from edge_runtime.errors import BundleError, UsageError
from edge_runtime.model.bundle import BUNDLE_SIGNATURE, MANIFEST, Bundle

AT_FDCWD = -100
RENAME_EXCHANGE = 2
"""From Linux's `fcntl.h` and `renameat2(2)`."""


def check_target(target: Path, *, replace: bool = False, option: str = "--out") -> None:
    """Check, before any work is done, that a folder can be written at `target`.

    Raises:
        UsageError: something there must not be replaced, or the folder above can't be written; names `option`.
    """
    try:
        str(target.absolute()).encode()
    except UnicodeEncodeError:
        raise UsageError(f"{target}: is not UTF-8, so OpenVINO can't write there; choose another {option}") from None
    try:
        if target.is_symlink():
            raise UsageError(f"{target}: is a symbolic link; choose another {option}")
        if target.exists() and not target.is_dir():
            raise UsageError(f"{target}: already exists and is not a directory; choose another {option}")
        if target.absolute().is_mount():
            raise UsageError(f"{target}: is a mount point; choose a folder in it, such as {target / 'detector'}")
        if target.is_dir() and any(target.iterdir()):
            if not replace:
                if (target / MANIFEST).is_file():
                    raise UsageError(f"{target}: already holds a bundle; add --replace, or choose another {option}")
                raise UsageError(f"{target}: is not empty and not a bundle; choose another {option}")
            _check_replaceable(target)
        above = next(folder for folder in target.absolute().parents if folder.exists())
    except OSError as error:
        raise UsageError(f"{target}: can't be used ({error.strerror or error}); choose another {option}") from None
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise UsageError(f"{target}: {above} can't be written; choose another {option}")


def _check_replaceable(target: Path) -> None:
    try:
        files = {MANIFEST, BUNDLE_SIGNATURE, *Bundle.open(target).manifest.files}
    except BundleError as error:
        raise UsageError(f"{target}: is not a bundle, so it is not replaced ({error}); choose another --out") from None
    for path in sorted(target.rglob("*")):
        name = path.relative_to(target).as_posix()
        if name not in files and (path.is_symlink() or not path.is_dir()):
            raise UsageError(f"{target}: {name} is not part of the bundle; move it away, or choose another --out")


@contextlib.contextmanager
def folder_in_one_step(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield an empty folder beside `target` that takes its place when the block ends, and is removed if it fails.

    The target stays unchanged until the final rename; then it is the new folder, complete and on disk. What
    a killed writer left beside it is removed.

    Raises:
        UsageError: another process is writing `target`, or `target` may not be replaced when the block ends.
        OSError: the folder can't be written.
    """
    target = target.absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    partial, old = (target.with_name(f".{target.name}.{kind}") for kind in ("partial", "old"))
    with _only_writer(target):
        shutil.rmtree(partial, ignore_errors=True)
        if old.exists() and not target.exists():
            old.rename(target)
        partial.mkdir()
        try:
            yield partial
            for path in (partial, *partial.rglob("*")):
                _sync(path)
            if replace and target.is_dir() and any(target.iterdir()):
                _check_replaceable(target)
                if not _exchange(partial, target):
                    target.rename(old)
                    partial.rename(target)
            else:
                try:
                    partial.rename(target)
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                        raise
                    raise UsageError(f"{target}: appeared meanwhile, not replaced; choose another --out") from None
            _sync(target.parent)
        finally:
            for leftover in (partial, old):
                shutil.rmtree(leftover, ignore_errors=True)


@contextlib.contextmanager
def _only_writer(target: Path) -> Iterator[None]:
    """Hold a lock on `target`. It ends with the process, and holds across containers, unlike a process id."""
    lock = target.with_name(f".{target.name}.lock")
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), lock.stat()):
                break
        except BlockingIOError:
            os.close(descriptor)
            raise UsageError(f"{target}: another process is writing it; wait for it, or choose another --out") from None
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):
                raise
            break  # A file system without locks.
        # The writer before us has just finished and removed the file that we have locked.
        os.close(descriptor)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
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


def _sync(path: Path) -> None:
    """Write a file or folder through to the disk: a rename survives a power cut only with what it names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
