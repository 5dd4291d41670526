"""JPEGs one after the other in a stream of bytes, and standard input, which is one."""

import functools
import os
import re
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from edge_runtime.pixels.pictures import plain_size, read_picture, read_reduced_grey
from edge_runtime.sources import Frame, Gap, Source
from edge_runtime.sources.opencv import CvView, cv2
from edge_runtime.sources.view import GLANCE, Glance, glance_size

LONGEST = 32 << 20
"""Bytes after which a JPEG without an end is garbage."""

BLOCK = 1 << 16

START, END = b"\xff\xd8\xff", b"\xff\xd9"

MARKER = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd7]")
"""A marker with a length, or a start or end: not a stuffed zero, a fill byte or a restart (ITU-T T.81, B.1.1). Stray
bytes between segments are skipped, as libjpeg does."""

PART_END, PART_HEAD = re.compile(rb"\r?\n--"), 1024
"""Before the next boundary of a multipart stream (RFC 2046, section 5.1.1), and the most bytes of a part's head."""


class JpegSplitter:
    """Cuts a stream of bytes into JPEGs, in linear time; what lies between them is skipped.

    A JPEG without an end marker is complete if a multipart boundary follows it, else it is skipped as cut off.
    """

    def __init__(self, longest: int = LONGEST) -> None:
        self._longest = longest
        self._buffer = bytearray()
        # Where to look for the next marker; None outside of a JPEG.
        self._at: int | None = None
        self._has_scan = False

    def feed(self, data: bytes) -> list[bytes]:
        """Append `data` and return the JPEGs that are complete now."""
        self._buffer += data
        buffer, found, start = self._buffer, [], 0
        while True:
            if self._at is None:
                first = buffer.find(START, start)
                if first < 0:
                    # The last two bytes may begin a JPEG.
                    start = max(start, len(buffer) - 2)
                    break
                start, self._at, self._has_scan = first, first + 2, False
            marker = MARKER.search(buffer, self._at)
            if marker is None:
                self._at = max(self._at, len(buffer) - 1)
                break
            at, kind = marker.start(), buffer[marker.start() + 1]
            if kind == 0xD9:
                if self._has_scan:
                    found.append(bytes(buffer[start : at + 2]))
                start, self._at = at + 2, None
            elif kind == 0xD8:
                boundary = PART_END.search(buffer, max(start, at - PART_HEAD), at) if self._has_scan else None
                if boundary is not None:
                    found.append(bytes(buffer[start : boundary.start()]) + END)
                start, self._at = at, None
            elif at + 4 > len(buffer):
                self._at = at
                break
            else:
                self._at = at + 2 + max(2, int.from_bytes(buffer[at + 2 : at + 4], "big"))
                self._has_scan = self._has_scan or kind == 0xDA
        if len(buffer) - start > self._longest:
            start, self._at = len(buffer), None
        del buffer[:start]
        if self._at is not None:
            self._at -= start
        return found


def decode(jpeg: bytes) -> Image.Image:
    """Return a JPEG's picture as RGB; raises PictureError if it is broken."""
    return read_picture(jpeg, formats=("JPEG",))


REDUCED = {
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}
"""OpenCV's flags that decode a JPEG in grey at a fraction of its size."""


class JpegView:
    """A JPEG, decoded as far as needed: by OpenCV, which is faster, where its pixels are the same."""

    def __init__(self, jpeg: bytes) -> None:
        self._jpeg = jpeg

    @functools.cached_property
    def _plain_size(self) -> tuple[int, int] | None:
        return plain_size(self._jpeg)

    @functools.cached_property
    def _picture(self) -> Image.Image:
        return decode(self._jpeg)

    @functools.cached_property
    def _pixels(self) -> Image.Image:
        image = self._decoded(cv2.IMREAD_COLOR)
        return self._picture if image is None else CvView(image).pixels()

    def _decoded(self, flags: int) -> "cv2.typing.MatLike | None":
        if self._plain_size is None:
            return None
        try:
            return cv2.imdecode(np.frombuffer(self._jpeg, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
        except cv2.error:
            return None

    def __call__(self) -> Image.Image:
        """Return the picture as RGB."""
        return self._picture

    def pixels(self) -> Image.Image:
        """Return the picture as RGBX or RGB."""
        return self._pixels

    def glance(self) -> Glance:
        """Return the small grey copy, decoded at a fraction of the JPEG's size."""
        if (size := self._plain_size) is not None:
            fits = [scale for scale in REDUCED if max(size) >= scale * GLANCE]
            grey = self._decoded(REDUCED[fits[-1]] if fits else cv2.IMREAD_GRAYSCALE)
            if grey is not None:
                return Glance(cv2.resize(grey, glance_size(size), interpolation=cv2.INTER_AREA).astype(np.uint8), size)
        small, size = read_reduced_grey(self._jpeg, GLANCE)
        return Glance(np.asarray(small.resize(glance_size(size), Image.Resampling.BOX)), size)


class StandardInput(Source):
    """JPEGs on standard input. Every one is judged, so the sender has to wait."""

    name = "-"

    def files(self) -> Iterable[Path]:
        """Return the file that is standard input, if it is one."""
        return [Path("/dev/stdin")]

    def frames(self, stop: threading.Event) -> Iterator[Frame | Gap]:
        """Yield every JPEG until the input ends."""
        splitter, index = JpegSplitter(), 0
        # A thread that waits in sys.stdin would hold its lock, and the process couldn't exit.
        while not stop.is_set() and (data := os.read(0, BLOCK)):
            for jpeg in splitter.feed(data):
                yield Frame(self.name, index, functools.partial(decode, jpeg))
                index += 1
        if index == 0 and not stop.is_set():
            yield Gap.failure(self.name, "standard input: no JPEG came; send JPEGs one after the other")
