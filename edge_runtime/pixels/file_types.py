"""Recognizes what a file is by its first bytes, whatever its name says."""

import os
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import IO

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "HEIF")
"""The picture formats this project reads, by Pillow's names; other readers of Pillow are older and less tested, and the
one for PostScript starts Ghostscript."""

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"}
    | {".pnm", ".avif", ".heic", ".heif"}
)
"""Suffixes of pictures, in lower case."""

HEAD_BYTES = 512
"""Number of bytes needed to recognize a file."""


class Content(Enum):
    """What a file holds."""

    PICTURE = "a picture in one of FORMATS"
    OTHER_PICTURE = "a picture in a format this project doesn't read"
    AUDIO = "sound, perhaps with a cover picture"
    OTHER = "anything else: a video, or no media at all"


@dataclass(frozen=True)
class FileType:
    """What a file holds, and its format: for a picture one of FORMATS, empty if unknown."""

    content: Content
    format: str = ""


_PICTURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    *((b"P%d%c" % (number, space), "PPM") for number in range(1, 7) for space in b" \t\r\n#"),
)
_OTHER_PICTURES = (
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"8BPS", "Photoshop"),
    (b"P7\n", "PAM"),
    (b"PF\n", "PFM"),
    (b"Pf\n", "PFM"),
    (b"\0\0\1\0", "ICO"),
    (b"DDS ", "DDS"),
    (b"qoif", "QOI"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"#?RGBE", "Radiance HDR"),
    (b"SIMPLE  =", "FITS"),
    (b"SDPX", "DPX"),
    (b"XPDS", "DPX"),
    (b"\x01\xda", "SGI"),
    (b"\x59\xa6\x6a\x95", "Sun raster"),
    (b"/* XPM", "XPM"),
    (b"BPG\xfb", "BPG"),
    (b"FUJIFILMCCD-RAW", "RAW"),
    (b"%!PS", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "PostScript"),
    (b"%PDF", "PDF"),
    (b"<svg", "SVG"),
)
_AUDIO = (
    *((magic, "MP3") for magic in (b"ID3", b"\xff\xfb", b"\xff\xfa", b"\xff\xf3", b"\xff\xf2")),
    *((magic, "AAC") for magic in (b"\xff\xf1", b"\xff\xf9", b"ADIF")),
    (b"fLaC", "FLAC"),
    (b"wvpk", "WavPack"),
    (b"MAC ", "Monkey's Audio"),
    (b"#!AMR", "AMR"),
    (b"MThd", "MIDI"),
)
_BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), FileType(Content.PICTURE, "AVIF")),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"), FileType(Content.PICTURE, "HEIF")),
    **dict.fromkeys((b"mif1", b"mif2", b"msf1"), FileType(Content.PICTURE, "HEIF")),
    **dict.fromkeys((b"M4A ", b"M4B ", b"M4P "), FileType(Content.AUDIO, "AAC")),
    b"crx ": FileType(Content.OTHER_PICTURE, "RAW"),
}
"""Brands of ISO base media files, the container of HEIF and AVIF (ISO/IEC 14496-12, section 4.3)."""


def file_type_of(head: bytes) -> FileType:
    """Recognize a file by its first HEAD_BYTES bytes."""
    if head[4:8] == b"ftyp":
        size = int.from_bytes(head[:4], "big")
        brands = [head[at : at + 4] for at in (8, *range(16, min(size, len(head)), 4))]
        # `mif1` says only "an HEIF picture"; the codec's own brand comes later in the list.
        found = [_BRANDS[brand] for brand in brands if brand in _BRANDS]
        if brands[0] not in _BRANDS:
            return FileType(Content.OTHER)
        return next((kind for kind in found if kind.format == "AVIF"), found[0])
    if head.startswith(b"RIFF"):
        riff = {b"WEBP": FileType(Content.PICTURE, "WEBP"), b"WAVE": FileType(Content.AUDIO, "WAV")}
        return riff.get(head[8:12], FileType(Content.OTHER))
    if head.startswith(b"OggS"):
        sound = (b"vorbis", b"OpusHead", b"FLAC", b"Speex")
        video = (b"theora", b"OVP80", b"BBCD")
        is_sound = any(codec in head for codec in sound) and not any(codec in head for codec in video)
        return FileType(Content.AUDIO, "Ogg") if is_sound else FileType(Content.OTHER)
    if head.startswith(b"FORM") and head[8:12] in (b"AIFF", b"AIFC"):
        return FileType(Content.AUDIO, "AIFF")
    tables = ((_PICTURES, Content.PICTURE), (_OTHER_PICTURES, Content.OTHER_PICTURE), (_AUDIO, Content.AUDIO))
    for table, content in tables:
        for magic, name in table:
            if head.startswith(magic):
                return FileType(content, name)
    return FileType(Content.OTHER)


def file_type(path: Path) -> FileType:
    """Recognize the file at `path`.

    Raises:
        OSError: it can't be read.
    """
    with path.open("rb") as file:
        return file_type_in(file, path.suffix)


def file_type_in(file: IO[bytes], suffix: str) -> FileType:
    """Recognize an open file whose name ends in `suffix`."""
    found = file_type_of(file.read(HEAD_BYTES))
    if found.content is Content.OTHER:
        # Targa has no magic number at its start, and at its end only since version 2.
        file.seek(max(0, file.seek(0, os.SEEK_END) - 18))
        if file.read().startswith(b"TRUEVISION-XFILE") or suffix.lower() == ".tga":
            return FileType(Content.OTHER_PICTURE, "TGA")
    return found
