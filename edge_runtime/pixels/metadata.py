"""Drops metadata from JPEG, PNG and GIF files before they are decoded.

Pillow joins metadata piece by piece, so a file of many small pieces takes time quadratic in its size. It also refuses
PNGs whose text or colour profile is large. The pixels need none of it. The first piece of EXIF and XMP is kept, because
it holds the orientation.
"""

import io
import re
import struct
import zlib
from typing import IO, Literal

from PIL import TiffImagePlugin

from edge_runtime.errors import PictureError

MAX_SCANS = 100
"""Scans in a JPEG. Each covers the whole picture, so a few bytes per scan would keep a thread busy for hours."""

MAX_PIECES = 50_000
"""Segments of a JPEG, chunks of a PNG, blocks of a GIF's extensions, strips or tiles of a TIFF; real files have up to a
few thousand."""

_TIFF_PIECES = (TiffImagePlugin.STRIPOFFSETS, TiffImagePlugin.STRIPBYTECOUNTS, TiffImagePlugin.TILEOFFSETS, 325)
"""Tags with one value per strip or tile; 325 is TileByteCounts."""

_SEGMENT = re.compile(rb"\xff([^\x00\x01\xff\xd0-\xd8])")
"""A JPEG marker that begins a segment or ends the picture (ITU-T T.81, B.1)."""

_KEPT_ONCE = (b"JFIF\0", b"Adobe", b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0")
"""First bytes of the JPEG segments that hold the colour encoding or the orientation."""

_PROFILE = b"iCCP" + b"profile\0\0" + zlib.compress(b"")
_EMPTY_PROFILE = struct.pack(">I", len(_PROFILE) - 4) + _PROFILE + struct.pack(">I", zlib.crc32(_PROFILE))
"""A PNG chunk that stands in for a colour profile, so that the shortcut audit still sees that there was one."""


def without_metadata(file: IO[bytes], form: str) -> IO[bytes]:
    """Return `file`, a picture in Pillow's format `form`, without metadata that the pixels don't need.

    Raises:
        PictureError: it has more than MAX_PIECES pieces, or is a JPEG of more than MAX_SCANS scans.
    """
    if form == "TIFF":
        _check_tiff(file)
    slim = {"JPEG": _slim_jpeg, "PNG": _slim_png, "GIF": _slim_gif}.get(form)
    return file if slim is None else io.BytesIO(slim(file.read()))


def without_exif(file: IO[bytes]) -> IO[bytes]:
    """Return an AVIF with empty EXIF directories; its own boxes hold the orientation."""
    data = bytearray(file.read())
    for header in re.finditer(rb"MM\0\*|II\*\0", bytes(data)):
        order: Literal["big", "little"] = "big" if header[0] == b"MM\0*" else "little"
        place = header.start() + int.from_bytes(data[header.end() : header.end() + 4], order)
        data[place : place + 2] = bytes(len(data[place : place + 2]))
    return io.BytesIO(bytes(data))


def _slim_jpeg(data: bytes) -> bytes:
    kept, missing, place, pieces = [data[:2]], list(_KEPT_ONCE), 2, 0
    # Stray bytes before a marker are skipped, as libjpeg does and Pillow doesn't.
    while (place := data.find(b"\xff", place)) >= 0:
        marker = data[place + 1 : place + 2]
        pieces = _count(pieces)
        if marker in (b"\xff", b"\0", b""):
            place += 1
        elif marker in (b"\xda", b"\xd9"):
            break
        elif b"\xd0" <= marker <= b"\xd8" or marker == b"\x01":
            place += 2
        else:
            end = place + 2 + max(2, int.from_bytes(data[place + 2 : place + 4], "big"))
            name = next((name for name in missing if data.startswith(name, place + 4)), None)
            if name is not None:
                missing.remove(name)
            if name is not None or not (b"\xe0" <= marker <= b"\xef" or marker == b"\xfe"):
                kept.append(data[place:end])
            place = end
    if place < 0:
        return data
    rest, scans = place, 0
    while (found := _SEGMENT.search(data, place)) and found[1] != b"\xd9":
        pieces, scans = _count(pieces), scans + (found[1] == b"\xda")
        if scans > MAX_SCANS:
            raise PictureError(f"a JPEG of more than {MAX_SCANS} scans; save it again")
        place = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    return b"".join([*kept, data[rest:]])


def _slim_png(data: bytes) -> bytes:
    """Keep the critical chunks, whose names begin in upper case, and the first EXIF (PNG, sections 5.4 and 11)."""
    kept, place, pieces, exif = [data[:8]], 8, 0, False
    while len(name := data[place + 4 : place + 8]) == 4 and name != b"IEND":
        pieces = _count(pieces)
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        if name[:1].isupper() or (name == b"eXIf" and not exif):
            kept.append(data[place:end])
            exif = exif or name == b"eXIf"
        elif name == b"iCCP":
            kept.append(_EMPTY_PROFILE)
        place = end
    return b"".join([*kept, data[place : place + 12]])


def _slim_gif(data: bytes) -> bytes:
    """Drop the extensions, comments among them, before the first picture (GIF89a, sections 17 to 26)."""
    flags, pieces = data[10] if len(data) > 10 else 0, 0
    start = place = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    while data[place : place + 1] == b"!":
        pieces, place = _count(pieces), place + 2
        while place < len(data) and data[place]:
            pieces, place = _count(pieces), place + 1 + data[place]
        place += 1
    return data[:start] + data[place:]


def _check_tiff(file: IO[bytes]) -> None:
    """Refuse a TIFF of more strips or tiles than MAX_PIECES, over which Pillow loops (TIFF 6.0, section 2)."""
    head = file.read(16)
    order, is_big = ("<" if head[:2] == b"II" else ">"), head[2:4] in (b"+\0", b"\0+")
    (place,) = struct.unpack_from(order + ("Q" if is_big else "I"), head, 8 if is_big else 4)
    number, entry = (
        struct.Struct(order + ("Q" if is_big else "H")),
        struct.Struct(order + ("HHQ8x" if is_big else "HHI4x")),
    )
    file.seek(place)
    (entries,) = number.unpack(file.read(number.size))
    table = file.read(min(entries, 65_535) * entry.size)
    for tag, _, count in entry.iter_unpack(table[: len(table) // entry.size * entry.size]):
        if tag in _TIFF_PIECES and count > MAX_PIECES:
            raise PictureError(f"it has more than {MAX_PIECES} strips or tiles; save it again")
    file.seek(0)


def _count(pieces: int) -> int:
    if pieces >= MAX_PIECES:
        raise PictureError(f"it has more than {MAX_PIECES} segments; save it again")
    return pieces + 1
