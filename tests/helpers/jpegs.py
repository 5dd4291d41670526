"""Noisy JPEGs, and how a camera sends them."""

import io
from typing import Any

import numpy as np
from PIL import Image

BOUNDARY = b"--frame\r\nContent-Type: image/jpeg\r\n\r\n"


def file_of(picture: Image.Image, format: str = "JPEG", **options: Any) -> bytes:
    """Return a picture as the bytes of a file; `options` go to Pillow."""
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


def jpeg_of(size: tuple[int, int] = (64, 48), seed: int = 1, **options: Any) -> bytes:
    """Return a JPEG of noise; `options` go to Pillow."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return file_of(Image.fromarray(pixels), **options)


def markers(jpeg: bytes) -> list[int]:
    """Return where the segments before the coded data begin."""
    at = [2]
    while jpeg[at[-1] + 1] != 0xDA:
        at.append(at[-1] + 2 + int.from_bytes(jpeg[at[-1] + 2 : at[-1] + 4], "big"))
    return at


JPEGS = [jpeg_of(), jpeg_of((17, 9), 2, progressive=True), jpeg_of((100, 80), 3, quality=95, optimize=True)]
