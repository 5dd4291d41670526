"""Looking at picture files: which there are, and what each tells."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from scipy.fft import dctn

from edge_runtime.errors import PictureError
from edge_runtime.pixels.boxes import Box
from edge_runtime.pixels.file_types import SUFFIXES
from edge_runtime.pixels.pictures import read_picture

MIN_SIDE = 32
"""Pixels: a picture with a shorter side holds no face that can be judged."""

FindBox = Callable[[Image.Image], Box | None]
"""Finds the face in a picture, or None where there is none."""


def picture_files(folder: Path) -> list[Path]:
    """Return the files below `folder` whose names end like pictures, absolute and sorted."""
    found = []
    for place, folders, names in os.walk(folder.resolve()):
        folders.sort()
        here = Path(place)
        found += [here / name for name in sorted(names) if Path(name).suffix.lower() in SUFFIXES and name[0] != "."]
    return found


def stamp(path: Path) -> list[int]:
    """Return the size in bytes and the time of change in ns: what differs when a file was written again."""
    try:
        status = path.stat()
    except OSError:
        return [0, 0]
    return [status.st_size, status.st_mtime_ns]


def scan(path: Path, find_box: FindBox | None) -> dict[str, Any]:
    """Return what a picture's file tells, as plain values; `reason` says why it can't be used, or is empty."""
    found: dict[str, Any] = {"path": str(path), "stamp": stamp(path), "reason": ""}
    try:
        picture = read_picture(path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except PictureError as error:
        return {**found, "reason": str(error).removeprefix(f"{path}: ")}
    except OSError as error:
        return {**found, "reason": f"can't be read ({error.strerror or error})"}
    found.update(width=picture.width, height=picture.height)
    if min(picture.size) < MIN_SIDE:
        return {**found, "reason": f"too small ({picture.width}×{picture.height}, {MIN_SIDE} pixels a side are needed)"}
    box = find_box(picture) if find_box else None
    if find_box and box is None:
        return {**found, "reason": "no face found in it"}
    grey = np.asarray(picture.convert("L"))
    measured = {"sharpness": round(float(cv2.Laplacian(grey, cv2.CV_64F).var()), 2), "brightness": float(grey.mean())}
    pixels = hashlib.sha256(picture.tobytes()).hexdigest()
    hashes = {"sha256": digest, "pixels": pixels, "phash": perceptual_hash(picture)}
    return {**found, **measured, **hashes, "box": box}


def perceptual_hash(picture: Image.Image) -> str:
    """Return 64 bits as 16 hexadecimal digits: signs of the low frequencies of a 32×32 grey thumbnail.

    Source: Zauner 2010, "Implementation and Benchmarking of Perceptual Image Hash Functions" (DCT hash).
    """
    thumbnail = picture.convert("L").resize((32, 32), Image.Resampling.BOX, reducing_gap=2)
    low = dctn(np.asarray(thumbnail, dtype=np.float64))[:8, :8].ravel()
    bits = low > np.median(low[1:])
    return f"{int(''.join('1' if bit else '0' for bit in bits), 2):016x}"
