"""Files that are complete or absent, also after a power cut."""

import contextlib
import errno
import hashlib
import itertools
import json
import os
import shutil
import stat
from typing import Any, Dict, Iterator

from board_setup.errors import BoardError

PARTIAL = ".partial"
"""Suffix of a file or folder that is still being written."""

COMPLETE = ".complete"
"""A file in a folder that marks the folder as complete."""


FULL = (errno.ENOSPC, errno.EDQUOT)
"""Error numbers of a full disk."""


class DamagedError(BoardError):
    """A file that this tool wrote can't be read back."""


@contextlib.contextmanager
def atomic(path: str) -> Iterator[str]:
    """Yield the path of a partial file, which takes the name `path` when the block ends without an error.

    An error removes the partial file. A power cut leaves it, and the next write replaces it.
    """
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    partial = path + PARTIAL
    try:
        yield partial
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except (Exception, KeyboardInterrupt):
        with contextlib.suppress(OSError):
            os.unlink(partial)
        raise


def write(path: str, text: str) -> None:
    """Write a text file atomically."""
    with atomic(path) as partial, open(partial, "w", encoding="utf-8") as file:
        file.write(text)


def copy(source: str, target: str, *, mode: int = 0o644) -> None:
    """Copy a file atomically; a program that has the old one open keeps it."""
    with atomic(target) as partial:
        shutil.copyfile(source, partial)
        os.chmod(partial, mode)


def link(target: str, path: str) -> None:
    """Make `path` a symbolic link to `target`, replacing an older link in one rename."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path + PARTIAL)
    os.symlink(target, path + PARTIAL)
    os.replace(path + PARTIAL, path)


def sha256(path: str) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def has_sha256(path: str, digest: str) -> bool:
    """Return whether a file exists, is readable and has this SHA-256."""
    try:
        return sha256(path) == digest
    except OSError:
        return False


def closed(*folders: str, alone: str) -> Dict[str, int]:
    """Return what not every user can read, and the modes with which they can.

    That is `folders` with all in them, and the folder `alone` with its files but without the folders in it.
    """
    modes = {}
    whole = (entry for folder in folders for entry in os.walk(folder))
    for base, _, names in [*itertools.islice(os.walk(alone), 1), *whole]:
        for path in [base, *(os.path.join(base, name) for name in names)]:
            mode = os.lstat(path).st_mode
            # As chmod a+rX does.
            opened = mode | 0o444 | (0o111 if mode & 0o111 else 0)
            if opened != mode and not stat.S_ISLNK(mode):
                modes[path] = stat.S_IMODE(opened)
    return modes


def empty_folder(path: str) -> str:
    """Delete a folder, create it again and return its path."""
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    return path


def read_text(path: str) -> str:
    """Return the text of a file, empty if it is missing or unreadable."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def read_json(path: str, default: Any, shape: Any, *, remedy: str = "delete it and run the same command again") -> Any:
    """Return the value of a JSON file, `default` if the file is missing or empty.

    Raises:
        DamagedError: it is not JSON, or not of this shape (see `has_shape`); says `remedy`.
    """
    text = read_text(path)
    if not text:
        return default
    with contextlib.suppress(ValueError, RecursionError):
        value = json.loads(text)
        if has_shape(value, shape):
            return value
    raise DamagedError(f"{path}: damaged; {remedy}")


ANY = "*"
"""In a shape: any key."""


def has_shape(value: Any, shape: Any) -> bool:
    """Return whether a JSON value has a shape: a type, `[shape]` for a list, or a dict of shapes by key or `ANY`."""
    if isinstance(shape, list):
        return isinstance(value, list) and all(has_shape(item, shape[0]) for item in value)
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return False
        pairs = [(value.get(key), kind) for key, kind in shape.items() if key != ANY]
        pairs += [(item, shape[ANY]) for item in value.values()] if ANY in shape else []
        return all(has_shape(item, kind) for item, kind in pairs)
    return isinstance(value, shape)
