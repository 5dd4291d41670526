"""Whether a video file was cut off, by the sizes that its container states."""

import os
from pathlib import Path
from typing import IO


def is_cut_off(path: Path) -> bool:
    """Return whether a part of the container should reach beyond the end of the file; raises OSError.

    Frame counts and durations don't tell: they are estimates in most containers, and include what an edit list hides. A
    transport stream is cut off if its last packet is. MPEG program streams state no sizes at all.
    """
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(0)
        head = file.read(16)
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip"):
            return _boxes_end(file) > end
        if head[:4] == b"RIFF":
            return _riff_end(file) > end
        if head[:4] == b"\x1a\x45\xdf\xa3":
            return _matroska_end(file) > end
        if head[:4] == b"\x30\x26\xb2\x75":
            # The header and the data of a WMV state their sizes (ASF specification, section 2.2).
            file.seek(16)
            header = int.from_bytes(file.read(8), "little")
            file.seek(header + 16)
            return header + int.from_bytes(file.read(8), "little") > end
        if head[:3] == b"FLV":
            # Each tag is followed by its size (FLV specification, E.3).
            file.seek(end - 4)
            size = int.from_bytes(file.read(4), "big")
            file.seek(max(0, end - 4 - size))
            return int.from_bytes(file.read(4)[1:], "big") + 11 != size
        for start, packet in ((0, 188), (4, 192)):
            file.seek(start)
            if all(file.read(1) == b"\x47" and file.seek(packet - 1, os.SEEK_CUR) > 0 for _ in range(3)):
                return end % packet != 0
    return False


def _boxes_end(file: IO[bytes]) -> int:
    """Return where the boxes of an MP4 or MOV end (ISO/IEC 14496-12, section 4.2)."""
    at = 0
    while True:
        file.seek(at)
        head = file.read(16)
        size = int.from_bytes(head[:4], "big")
        if size == 1:
            size = int.from_bytes(head[8:16], "big")
        # 0 means "to the end of the file"; anything else that is not a box was appended by another program.
        if len(head) < 8 or size < 8 or not head[4:8].isalnum():
            return at
        at += size


def _riff_end(file: IO[bytes]) -> int:
    """Return where the RIFF chunks of an AVI end; a recording that was not closed states no size."""
    at = 0
    while True:
        file.seek(at)
        head = file.read(8)
        size = int.from_bytes(head[4:8], "little")
        if head[:4] != b"RIFF" or size in (0, 0xFFFFFFFF):
            return at
        at += 8 + size


def _matroska_end(file: IO[bytes]) -> int:
    """Return where the segment of a Matroska or WebM file ends (RFC 8794, sections 4 and 5)."""
    file.seek(4)
    header = _vint(file)
    if header is not None:
        file.seek(header, os.SEEK_CUR)
        if file.read(4) == b"\x18\x53\x80\x67" and (size := _vint(file)) is not None:
            return file.tell() + size
    return 0


def _vint(file: IO[bytes]) -> int | None:
    """Return a size of variable length; None if it is unknown, as in a live recording."""
    first = file.read(1)
    length = 9 - first[0].bit_length() if first else 9
    if length > 8:
        return None
    value = int.from_bytes(first + file.read(length - 1), "big") & ((1 << 7 * length) - 1)
    return None if value == (1 << 7 * length) - 1 else value
