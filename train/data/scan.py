"""Finding files below a folder, and measuring the pictures among them."""

import hashlib
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from edge_runtime.errors import PictureError
from edge_runtime.pixels.boxes import Box
from edge_runtime.pixels.phash import perceptual_hash
from edge_runtime.pixels.pictures import read_picture
from edge_runtime.pixels.provenance import ai_claim
from train.data.catalog import Quarantined

MIN_SIDE = 32
"""Pixels; a picture with a shorter side is too small to judge."""

MEASURED = frozenset(
    {"stamp", "width", "height", "sharpness", "brightness", "sha256", "pixels", "phash", "box", "claim"}
)
"""The values that `scan` returns for a picture that can be used."""

FindBox = Callable[[Image.Image], Box | None]
"""Finds the face in a picture; None where there is none."""


def walk_files(folder: Path) -> tuple[list[Path], list[Quarantined]]:
    """Return the files below `folder`, absolute and sorted, and the folders that can't be listed.

    Links are followed, each folder once. Hidden files are ignored.
    """

    def is_folder(entry: "os.DirEntry[str]") -> bool:
        try:
            return entry.is_dir()
        except OSError:  # a link that points to itself
            return False

    found: list[str] = []
    unreadable: list[Quarantined] = []
    waiting, seen = deque([str(folder.resolve())]), set()
    while waiting:
        place = waiting.popleft()
        try:
            status = os.stat(place)  # noqa: PTH116  (pathlib takes seconds for a thousand nested folders)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(place) as listed:
                entries = sorted(listed, key=lambda entry: entry.name)
        except OSError as error:
            unreadable.append(Quarantined(Path(place), f"can't be listed ({error.strerror or error})", broken=True))
            continue
        for entry in entries:
            if is_folder(entry):
                waiting.append(entry.path)
            elif not entry.name.startswith("."):
                found.append(entry.path)
    return sorted(map(Path, found)), unreadable


def stamp(path: Path) -> list[int]:
    """Return a file's size in bytes and modification time in ns, which change when it is written again."""
    try:
        status = path.stat()
    except OSError:
        return [0, 0]
    return [status.st_size, status.st_mtime_ns]


def scan(path: Path, find_box: FindBox | None) -> dict[str, Any]:
    """Return what is measured of a picture, as JSON values; `reason` is empty unless the picture can't be used."""
    found: dict[str, Any] = {"path": str(path), "stamp": stamp(path), "reason": ""}
    try:
        picture = read_picture(path)
        data = path.read_bytes()
        claim = ai_claim(data)
    except PictureError as error:
        return {**found, "reason": error.reason}
    except OSError as error:
        return {**found, "reason": f"can't be read ({error.strerror or error})"}
    found.update(width=picture.width, height=picture.height)
    if min(picture.size) < MIN_SIDE:
        return {**found, "reason": f"too small ({picture.width}×{picture.height}, at least {MIN_SIDE} pixels a side)"}
    box = find_box(picture) if find_box else None
    if find_box and box is None:
        return {**found, "reason": "no face found"}
    grey = np.asarray(picture.convert("L"))
    return {
        **found,
        "sharpness": round(float(cv2.Laplacian(grey, cv2.CV_64F).var()), 2),
        "brightness": float(grey.mean()),
        "sha256": hashlib.sha256(data).hexdigest(),
        "pixels": hashlib.sha256(picture.tobytes()).hexdigest(),
        "phash": perceptual_hash(picture),
        "box": box,
        "claim": str(claim or ""),
    }
