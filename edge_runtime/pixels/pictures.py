"""Reads picture files as upright RGB: rotated, grey, CMYK, 16-bit or animated ones. Broken files raise PictureError."""

import io
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin

from edge_runtime.errors import LargePictureError, PictureError
from edge_runtime.pixels.file_types import FORMATS, Content, file_type_in
from edge_runtime.pixels.metadata import without_exif, without_metadata

# Pillow warns of odd metadata and large pictures, which are handled here. Silence it once: pictures are read by several
# threads, and warnings.catch_warnings changes the filters of all of them.
warnings.filterwarnings("ignore", module=r"PIL\.")

MAX_PIXELS = 100_000_000
"""Larger pictures are refused before they are decoded; they would take more than 400 MB of memory."""

LARGE_PIXELS = 12_000_000
"""Larger pictures are decoded one at a time, since each takes hundreds of megabytes."""

TIFF_COMPRESSIONS = frozenset({"raw", "tiff_lzw", "jpeg", "tiff_adobe_deflate", "tiff_deflate", "packbits"})
"""Compressions of TIFF that are read, by Pillow's names; the rest is rare, and its decoders are little tested."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transposition that turns a picture upright, by its EXIF orientation (CIPA DC-008, section 4.6.5)."""

_large = threading.Lock()


def read_picture(
    source: Path | str | bytes, *, formats: tuple[str, ...] = FORMATS, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Read a picture as RGB, upright, whole.

    The EXIF orientation is applied; greyscale, palette, CMYK and 16-bit pictures are converted; the first picture of an
    animation is taken; transparency is dropped. For the arguments and errors see `open_picture`.
    """
    with (
        open_picture(source, formats=formats, max_pixels=max_pixels) as picture,
        _large if picture.width * picture.height > LARGE_PIXELS else nullcontext(),
    ):
        return _upright_rgb(picture)


def read_reduced_grey(jpeg: bytes, longest: int) -> tuple[Image.Image, tuple[int, int]]:
    """Decode a JPEG at the smallest of a half, quarter or eighth of its size that is not below `longest` pixels.

    Returns:
        the picture in grey, upright, and the whole picture's width and height.

    Raises:
        PictureError: it is broken.
    """
    with open_picture(jpeg, formats=("JPEG",)) as picture:
        size = picture.size
        scale = min(1.0, longest / max(size))
        picture.draft("L", (round(size[0] * scale), round(size[1] * scale)))
        turn = _turn(picture)
        picture.load()
        grey = picture.convert("L")
    turned = turn is not None and turn >= Image.Transpose.ROTATE_90 and turn != Image.Transpose.ROTATE_180
    return grey if turn is None else grey.transpose(turn), (size[1], size[0]) if turned else size


def plain_size(jpeg: bytes) -> tuple[int, int] | None:
    """Return width and height of a JPEG that OpenCV decodes as `read_picture` does: whole, colour, upright; else None.

    Raises:
        PictureError: it is broken.
    """
    with open_picture(jpeg, formats=("JPEG",)) as picture:
        # OpenCV fills what is missing with grey. Cameras fill their buffers with zeros.
        whole = jpeg.rstrip(b"\0").endswith(b"\xff\xd9")
        return picture.size if whole and picture.mode == "RGB" and _turn(picture) is None else None


@contextmanager
def open_picture(
    source: Path | str | bytes, *, formats: tuple[str, ...] = FORMATS, max_pixels: int = MAX_PIXELS
) -> Iterator[Image.Image]:
    """Open a picture without decoding it. Of its metadata, only EXIF is kept, and whether there is a colour profile.

    Args:
        source: a regular file, or the bytes of one.
        formats: Pillow's names of the formats to read, some of FORMATS.
        max_pixels: a picture of more is refused.

    Raises:
        LargePictureError: it has more than `max_pixels` pixels.
        PictureError: it is missing, not a regular file, not a picture, in another format, or broken, also where this is
            noticed only inside the `with` block.
    """
    name = "the picture" if isinstance(source, bytes) else str(source)
    try:
        with _open_file(source) as file:
            found = file_type_in(file, "" if isinstance(source, bytes) else Path(source).suffix)
            file.seek(0)
            if found.content is Content.OTHER_PICTURE:
                raise PictureError(f"{found.format} pictures can't be read; save it as JPEG or PNG")
            if found.content is not Content.PICTURE or found.format not in formats:
                raise PictureError("not a picture that can be read")
            if found.format == "HEIF":
                _register_heif()
            with _open_image(without_metadata(file, found.format), found.format) as picture:
                pixels = _decoded_pixels(picture)
                if pixels > max_pixels:
                    raise LargePictureError(
                        f"{picture.width}×{picture.height} pixels ({pixels / 1e6:.0f} million to decode) is over "
                        f"{max_pixels / 1e6:g} million; make it smaller"
                    )
                yield picture
    except PictureError as error:
        raise type(error)(error.reason, name) from None
    except Image.DecompressionBombError:
        raise LargePictureError("too many pixels; make it smaller", name) from None
    # Pillow's decoders raise errors of many kinds on broken files; all mean the same to the user.
    except Exception as error:
        raise PictureError(f"broken or cut off ({error})", name) from error


def _open_file(source: Path | str | bytes) -> IO[bytes]:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    path = Path(source)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise PictureError("not a regular file; give a picture")
        return path.open("rb")
    except FileNotFoundError:
        raise PictureError("not found" + (" (a broken link)" if path.is_symlink() else "")) from None
    except (OSError, ValueError) as error:
        raise PictureError(f"can't be read ({getattr(error, 'strerror', None) or error})") from None


def _open_image(file: IO[bytes], form: str) -> Image.Image:
    try:
        return Image.open(file, formats=(form,))
    except Exception:
        if form != "AVIF":
            raise
        # Pillow rewrites the EXIF of a turned AVIF, and fails on odd tags.
        file.seek(0)
        return Image.open(without_exif(file), formats=(form,))


def _register_heif() -> None:
    try:
        import pillow_heif
    except ImportError:
        raise PictureError("HEIC pictures need pillow-heif; run pip install pillow-heif, or save it as JPEG") from None
    pillow_heif.register_heif_opener()


def _decoded_pixels(picture: Image.Image) -> int:
    """Return how many pixels decoding takes: of a TIFF, a single tile may be larger than the picture."""
    pixels = picture.width * picture.height
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        compression = picture.info.get("compression", "raw")
        if compression not in TIFF_COMPRESSIONS:
            raise PictureError(f"TIFF with {compression} compression can't be read; save it as PNG")
        tags = picture.tag_v2
        width, height = (tags.get(tag, 0) for tag in (TiffImagePlugin.TILEWIDTH, TiffImagePlugin.TILELENGTH))
        pixels = max(pixels, int(width) * int(height))
    return pixels


def _turn(picture: Image.Image) -> Image.Transpose | None:
    """Return the transposition that turns `picture` upright.

    ImageOps.exif_transpose writes all EXIF tags again and fails on the odd ones that cameras write. The orientation is
    removed, because Pillow turns TIFFs itself.
    """
    try:
        return TURNS.get(picture.getexif().pop(ExifTags.Base.Orientation, 1))
    except Exception:
        # Unreadable EXIF: the picture itself may be fine.
        return None


def _upright_rgb(picture: Image.Image) -> Image.Image:
    turn = _turn(picture)
    picture.load()
    if picture.mode.startswith("I;16"):
        rgb = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")
    elif picture.mode in ("I", "F"):
        raise PictureError(f"pixels of mode {picture.mode} have no fixed range; save it with 8 or 16 bits per channel")
    else:
        rgb = picture if picture.mode == "RGB" else picture.convert("RGB")
    return rgb if turn is None else rgb.transpose(turn)
