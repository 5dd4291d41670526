"""Files that are there whole or not at all, also when the power goes."""

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
