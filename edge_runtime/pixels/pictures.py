"""Opening pictures as they come: turned, grey, CMYK, 16-bit, animated, broken or not a picture at all."""

import io
import stat
import warnings
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from edge_runtime.errors import PictureError

# Of odd metadata and large pictures, which are dealt with here. Once, since pictures are read by several threads, and
# warnings.catch_warnings changes, and puts back, the filters of all of them.
warnings.filterwarnings("ignore", module=r"PIL\.")

MAX_PIXELS = 100_000_000
"""A picture of more pixels is refused before it is decoded: it would take over 300 MB of memory."""

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})


def read_picture(
    source: Path | str | bytes, *, formats: tuple[str, ...] | None = None, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Read a picture as RGB, upright, whole.

    The EXIF turn is applied; greyscale, palette, CMYK and 16-bit pictures are converted; of an animation the first
    picture is taken; transparency is dropped.

    Args:
        source: a regular file, or the bytes of one.
        formats: Pillow's names of the formats that are read; None is all of them.
        max_pixels: a picture of more is refused before it is decoded.

    Raises:
        PictureError: it is missing, no regular file, no picture, truncated, or of more than `max_pixels` pixels.
    """
    if isinstance(source, bytes):
        return _decode(io.BytesIO(source), "the picture", formats, max_pixels)
    path = Path(source)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise PictureError(f"{path}: no regular file; give a picture")
        with path.open("rb") as file:
            return _decode(file, str(path), formats, max_pixels)
    except FileNotFoundError:
        target = " (a link that points nowhere)" if path.is_symlink() else ""
        raise PictureError(f"{path}: not found{target}") from None
    except OSError as error:
        raise PictureError(f"{path}: can't be read ({error.strerror or error})") from error


def _decode(file: IO[bytes], name: str, formats: tuple[str, ...] | None, max_pixels: int) -> Image.Image:
    try:
        with Image.open(file, formats=formats) as picture:
            if picture.width * picture.height > max_pixels:
                raise PictureError(
                    f"{name}: {picture.width}×{picture.height} is over {max_pixels // 1_000_000} million pixels; "
                    "make it smaller"
                )
            picture.load()
            ImageOps.exif_transpose(picture, in_place=True)
            return _to_rgb(picture, name)
    except UnidentifiedImageError:
        raise PictureError(f"{name}: not a picture that can be read") from None
    except PictureError:
        raise
    except Image.DecompressionBombError:
        raise PictureError(f"{name}: too many pixels; make it smaller") from None
    # Pillow's decoders raise errors of many kinds on broken files; all mean the same to the user.
    except Exception as error:
        raise PictureError(f"{name}: broken or cut off ({error})") from error


def _to_rgb(picture: Image.Image, name: str) -> Image.Image:
    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")
    if picture.mode in ("I", "F"):
        raise PictureError(
            f"{name}: pixels of mode {picture.mode} have no fixed range; save it with 8 or 16 bits a channel"
        )
    return picture.convert("RGB")
