"""What a picture's file says about AI having made it. It can be forged or stripped, so it never enters a score."""

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from PIL import ExifTags

from edge_runtime.errors import PictureError
from edge_runtime.pixels.content_credentials import MARK, ContentCredentials, content_credentials
from edge_runtime.pixels.file_types import HEAD_BYTES, file_type_of
from edge_runtime.pixels.pictures import open_picture
from edge_runtime.printable import printable

GENERATOR_TEXTS = ("parameters", "prompt", "workflow")
"""Keywords of PNG texts in which Stable Diffusion's programs store how a picture was made."""

_GENERATORS = re.compile(
    r"midjourney|\bdall\W?e\b|stable.?diffusion|firefly|novelai|comfyui|invokeai|automatic1111|fooocus|dreamstudio"
    r"|leonardo\.ai|ideogram|black forest labs|flux\.1|imagen\b|image creator|made with google ai",
    re.IGNORECASE,
)
_SETTINGS = re.compile(r"Steps: \d+, Sampler: ")
"""How AUTOMATIC1111 describes a picture in the EXIF of a JPEG."""

_SOURCE_TYPE = re.compile(rb"digitalsourcetype.{0,150}?((?:compositewith)?trainedalgorithmicmedia)", re.S)
"""IPTC's value, in XMP and, since its CBOR is plain text, in a C2PA manifest (IPTC NewsCodes, digitalsourcetype)."""

_AIGC = re.compile(rb"AIGC.{0,60}?Label(?:[^0-9A-Za-z]|quot){1,40}?1\b", re.S)
"""China's label for generated content (GB 45438-2025, annex E): a Label of 1 says that AI made it."""

_TEXT_BYTES = 1 << 20
"""At most this many bytes of a PNG's texts are read: compressed ones could unpack to gigabytes."""

_PLACES = 100
"""Only this many occurrences of a word are examined: the patterns would take a minute over a hostile file."""

_CHUNKS = 50_000
"""At most this many chunks of a PNG are examined."""

VIDEO_ENDS = 1 << 20
"""A video's metadata are looked for in this many bytes at its beginning and its end."""

VIDEO_TYPES = {".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/quicktime", ".avi": "video/avi"}
"""Videos whose C2PA manifest is read, by suffix."""


class ClaimKind(str, Enum):
    """Where a file says that AI made the picture."""

    PNG_TEXT = "PNG text"
    SOURCE_TYPE = "DigitalSourceType"
    C2PA = "C2PA manifest"
    SOFTWARE = "Software"
    SETTINGS = "EXIF UserComment"
    AIGC = "AIGC label"


@dataclass(frozen=True)
class AiClaim:
    """A file's claim that AI made the picture: where it is, and what it says, in at most 80 printable characters."""

    kind: ClaimKind
    text: str

    def __str__(self) -> str:
        """Return it in one line."""
        return f"{self.kind.value}: {self.text}"


@dataclass(frozen=True)
class Provenance:
    """What a file says about its origin. No score depends on it.

    Attributes:
        claim: the first claim that AI made it; None if there is none.
        credentials: its C2PA manifest; None if there is none.
    """

    claim: AiClaim | None = None
    credentials: ContentCredentials | None = None

    def to_dict(self) -> dict[str, Any] | None:
        """Return JSON values; None if the file says nothing."""
        if self.claim is None and self.credentials is None:
            return None
        return {
            "kind": self.claim.kind.value if self.claim else None,
            "text": self.claim.text if self.claim else None,
            "c2pa": self.credentials.to_dict() if self.credentials else None,
        }

    def __str__(self) -> str:
        """Return it in one line, empty if the file says nothing."""
        return "; ".join(str(part) for part in (self.claim, self.credentials) if part)


def picture_provenance(source: Path | str | bytes) -> Provenance:
    """Return what a picture's file says about its origin; nothing if it can't be read.

    Args:
        source: a file, or the bytes of one.
    """
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
        claim = ai_claim(data)
    except (OSError, PictureError):
        return Provenance()
    if MARK not in data:
        return Provenance(claim)
    mime_type = f"image/{file_type_of(data[:HEAD_BYTES]).format.lower()}"
    return Provenance(claim, content_credentials(data, mime_type, says_ai=_is_manifest(claim)))


def video_provenance(path: Path) -> Provenance:
    """Return what a video's file says about its origin, in VIDEO_ENDS; nothing if it can't be read.

    To check a C2PA manifest, the whole file is read.
    """
    try:
        with path.open("rb") as file:
            data = file.read(VIDEO_ENDS)
            file.seek(max(VIDEO_ENDS, path.stat().st_size - VIDEO_ENDS))
            data += file.read(VIDEO_ENDS)
    except OSError:
        return Provenance()
    claim = _claim_in(data)
    mime_type = VIDEO_TYPES.get(path.suffix.lower())
    if MARK not in data or mime_type is None:
        return Provenance(claim)
    return Provenance(claim, content_credentials(path, mime_type, says_ai=_is_manifest(claim)))


def _is_manifest(claim: AiClaim | None) -> bool:
    return claim is not None and claim.kind is ClaimKind.C2PA


def ai_claim(source: Path | str | bytes) -> AiClaim | None:
    """Return the first claim in a picture's metadata that AI made it; None if there is none. No signature is checked.

    Args:
        source: a file, or the bytes of one.

    Raises:
        PictureError: it can't be read.
    """
    with open_picture(source) as picture:
        exif = picture.getexif()
        comment = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment, "")
        software = str(exif.get(ExifTags.Base.Software, ""))
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
    except OSError as error:
        raise PictureError(f"can't be read ({error.strerror or error})", str(source)) from None
    places = [data, _comment_text(comment).encode()]
    for keyword, text in _png_texts(data):
        if keyword in GENERATOR_TEXTS and text.strip():
            return _claim(ClaimKind.PNG_TEXT, f"{keyword}: {text}")
        software += f" {text}" if keyword == "Software" else ""
        places.append(f"{keyword} {text}".encode())
    for place in places:
        if marked := _claim_in(place):
            return marked
    if _GENERATORS.search(software):
        return _claim(ClaimKind.SOFTWARE, software)
    if _SETTINGS.search(_comment_text(comment)):
        return _claim(ClaimKind.SETTINGS, _comment_text(comment))
    return None


def _claim_in(place: bytes) -> AiClaim | None:
    """Return the claim in XMP, a C2PA manifest or China's label."""
    if found := _near(b"trainedalgorithmicmedia", _SOURCE_TYPE, place.lower()):
        in_manifest = place.rfind(b"jumb", 0, found.start()) > place.rfind(b"<x:xmpmeta", 0, found.start())
        value = place[found.start(1) : found.end(1)].decode()
        return _claim(ClaimKind.C2PA if in_manifest else ClaimKind.SOURCE_TYPE, value)
    return _claim(ClaimKind.AIGC, "Label 1") if _near(b"AIGC", _AIGC, place) else None


def _near(word: bytes, pattern: re.Pattern[bytes], data: bytes) -> re.Match[bytes] | None:
    """Return the first match of `pattern` within 250 bytes of a `word`."""
    place = -1
    for _ in range(_PLACES):
        place = data.find(word, place + 1)
        if place < 0:
            break
        if found := pattern.search(data, max(0, place - 250), place + 250):
            return found
    return None


def _claim(kind: ClaimKind, text: str) -> AiClaim:
    return AiClaim(kind, printable(" ".join(text.split())[:80]))


def _comment_text(comment: object) -> str:
    """Return an EXIF UserComment without the eight bytes that name its encoding (CIPA DC-008, section 4.6.6)."""
    if not isinstance(comment, bytes):
        return str(comment)
    code, text = comment[:8], comment[8:]
    if not code.startswith(b"UNICODE"):
        return text.decode(errors="replace")
    return text.decode("utf-16-le" if text[1:2] == b"\0" else "utf-16-be", errors="replace")


def _png_texts(data: bytes) -> Iterator[tuple[str, str]]:
    """Yield keyword and text of a PNG's texts (PNG, section 11.3.3)."""
    place = 8 if data.startswith(b"\x89PNG\r\n\x1a\n") else len(data)
    left = _TEXT_BYTES
    for _ in range(_CHUNKS):
        size, name = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        if len(name) < 4 or name == b"IEND":
            return
        if name in (b"tEXt", b"zTXt", b"iTXt") and left > 0:
            keyword, _, rest = data[place + 8 : place + 8 + min(size, _TEXT_BYTES)].partition(b"\0")
            text = rest[2:].split(b"\0", 2)[-1] if name == b"iTXt" else rest
            if name == b"zTXt" or (name == b"iTXt" and rest[:1] == b"\1"):
                text = _inflated(rest[1:] if name == b"zTXt" else text, left)
            left -= len(text)
            yield keyword.decode("latin-1"), text.decode("latin-1" if name != b"iTXt" else "utf-8", "replace")
        place += 12 + size


def _inflated(data: bytes, most: int) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, most)
    except zlib.error:
        return b""
