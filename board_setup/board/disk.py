"""Files that are there whole or not at all, also when the power goes."""

import contextlib
import hashlib
import json
import os
import shutil
from typing import Any

SCRATCH = ".partial"
"""Ends the name of what is not whole yet."""

COMPLETE = ".complete"
"""The file in a folder that says that all of it is there."""


def write(path: str, text: str) -> None:
    """Write a file whole or not at all, also when the power goes."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path + SCRATCH, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + SCRATCH, path)


def copy(source: str, target: str, *, mode: int = 0o644) -> None:
    """Copy a file whole or not at all, also when the power goes; what has the old one open keeps it."""
    os.makedirs(os.path.dirname(target), exist_ok=True)
    shutil.copyfile(source, target + SCRATCH)
    os.chmod(target + SCRATCH, mode)
    os.sync()
    os.replace(target + SCRATCH, target)


def link(target: str, path: str) -> None:
    """Make `path` a link to `target` by one rename, also where it was another link."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path + SCRATCH)
    os.symlink(target, path + SCRATCH)
    os.replace(path + SCRATCH, path)


def sha256(path: str) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def has_sha256(path: str, digest: str) -> bool:
    """Say whether a file is there, can be read and has this SHA-256."""
    try:
        return sha256(path) == digest
    except OSError:
        return False


def complete(folder: str) -> None:
    """Mark a folder as whole, after all of it has reached the disk."""
    os.sync()
    write(os.path.join(folder, COMPLETE), "")


def emptied(folder: str) -> str:
    """Make a folder anew and return it."""
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    return folder


def read_text(path: str) -> str:
    """Return the text of a file, empty where there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""


def read_json(path: str, default: Any) -> Any:
    """Return what a JSON file holds, `default` where there is none."""
    text = read_text(path)
    return json.loads(text) if text else default
