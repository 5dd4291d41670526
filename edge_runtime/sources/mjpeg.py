"""JPEG pictures one after the other: from standard input, or from a camera that sends them over HTTP."""

import base64
import functools
import http.client
import os
import re
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import deque
from collections.abc import Iterator

from PIL import Image

from edge_runtime.errors import SourceError
from edge_runtime.judging.results import SourceState
from edge_runtime.pixels.pictures import read_picture
from edge_runtime.sources import Frame, Gap, Source, SourceOptions
from edge_runtime.sources.live import CONNECT_S, Load

LONGEST = 32 << 20
"""Bytes of a JPEG from which it is taken for garbage."""

BLOCK = 1 << 16

_START = b"\xff\xd8\xff"
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""Inside of the coded data a marker is 0xFF and neither a stuffed zero nor a restart (ITU-T T.81, B.1.1)."""

_ALONE = frozenset(b"\x01\xd0\xd1\xd2\xd3\xd4\xd5\xd6\xd7")
"""Markers without a length."""


class JpegSplitter:
    """Cuts a stream of bytes into whole JPEGs; what lies between them, and broken ones, is skipped."""

    def __init__(self, longest: int = LONGEST) -> None:
        self._longest = longest
        self._buffer = bytearray()
        self._at = 0
        self._in_scan = False

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes and return the JPEGs that are whole now."""
        self._buffer += data
        found = []
        while (jpeg := self._next()) is not None:
            found.append(jpeg)
        if len(self._buffer) > self._longest:
            self._drop(len(self._buffer))
        return found

    def _next(self) -> bytes | None:
        """Return the first whole JPEG, or None where more bytes are needed; `_at` is how far it was looked at."""
        while True:
            if self._at == 0 and not self._to_start():
                return None
            end = self._walk()
            if end is None:
                return None
            if end > 0:
                jpeg = bytes(self._buffer[:end])
                self._drop(end)
                return jpeg
            self._drop(2)

    def _to_start(self) -> bool:
        start = self._buffer.find(_START)
        if start < 0:
            self._drop(max(0, len(self._buffer) - 2))
            return False
        self._drop(start)
        self._at = 2
        return True

    def _walk(self) -> int | None:
        """Go from marker to marker; return the JPEG's length, 0 where it is broken, None where bytes are missing."""
        while True:
            marker = self._marker()
            if marker is None:
                return None
            if marker == 0xD9:
                return self._at + 2
            if marker in (0, 0xD8):
                return 0
            length = 0 if marker in _ALONE else self._length()
            if length is None:
                return None
            self._at += 2 + length
            self._in_scan = marker == 0xDA

    def _marker(self) -> int | None:
        """Return the marker at `_at`, or the next one within coded data; 0 where there should be one and is none."""
        if self._in_scan:
            found = _MARKER.search(self._buffer, self._at)
            # The last byte may be the first half of a marker.
            self._at = found.start() if found else max(self._at, len(self._buffer) - 1)
            return self._buffer[self._at + 1] if found else None
        if self._at + 2 > len(self._buffer):
            return None
        return self._buffer[self._at + 1] if self._buffer[self._at] == 0xFF else 0

    def _length(self) -> int | None:
        if self._at + 4 > len(self._buffer):
            return None
        return max(2, int.from_bytes(self._buffer[self._at + 2 : self._at + 4], "big"))

    def _drop(self, count: int) -> None:
        del self._buffer[:count]
        self._at, self._in_scan = 0, False


def decode(jpeg: bytes) -> Image.Image:
    """Return a JPEG's picture as RGB.

    Raises:
        PictureError: it is broken.
    """
    return read_picture(jpeg, formats=("JPEG",))


class StandardInput(Source):
    """JPEGs on standard input; every one is judged, so whoever sends them waits."""

    name = "-"

    def frames(self, stop: threading.Event) -> Iterator[Frame | Gap]:
        """Yield every JPEG until the input ends."""
        splitter, index = JpegSplitter(), 0
        # Not sys.stdin: its lock, held by a thread that waits, would keep the program from ending.
        while not stop.is_set() and (data := os.read(0, BLOCK)):
            for jpeg in splitter.feed(data):
                yield Frame(self.name, index, functools.partial(decode, jpeg))
                index += 1
        if index == 0 and not stop.is_set():
            yield Gap(
                self.name,
                SourceState.ENDED,
                "standard input: no JPEG came; send JPEGs one after the other",
                failed=True,
            )


class PatientHandler(urllib.request.HTTPSHandler, urllib.request.HTTPHandler):
    """Opens addresses whose answers, once they have begun, may pause for longer than reaching them may take."""

    def __init__(self, pause_s: float) -> None:
        super().__init__()
        self._pause_s = pause_s

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        """Open an http:// address; urllib calls this by its name."""
        return self.do_open(_patient(http.client.HTTPConnection, self._pause_s), request)

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        """Open an https:// address."""
        return self.do_open(_patient(http.client.HTTPSConnection, self._pause_s), request)


def _patient(kind: type[http.client.HTTPConnection], pause_s: float) -> type[http.client.HTTPConnection]:
    class Patient(kind):  # type: ignore[misc, valid-type]
        def getresponse(self) -> http.client.HTTPResponse:
            # Kept, since the connection lets go of it where the answer ends only with the connection.
            connected = self.sock
            response: http.client.HTTPResponse = super().getresponse()
            connected.settimeout(pause_s)
            return response

    return Patient


class HttpCamera:
    """An open MJPEG stream over HTTP."""

    def __init__(self, address: str, options: SourceOptions) -> None:
        self.name, self._timeout_s = public_name(address), options.stall_timeout_s
        self._splitter = JpegSplitter()
        self._ready: deque[bytes] = deque()
        try:
            opener = urllib.request.build_opener(PatientHandler(self._timeout_s))
            self._response = opener.open(_request(address), timeout=min(self._timeout_s, CONNECT_S))
        except urllib.error.HTTPError as error:
            raise SourceError(f"{self.name}: answers {error.code} {error.reason}") from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise SourceError(f"{self.name}: can't be reached ({reason})") from None

    def read(self) -> Load:
        """Wait for the next JPEG.

        Raises:
            SourceError: the stream ended, or nothing that is a JPEG came for too long.
        """
        began = time.monotonic()
        while not self._ready:
            self._ready.extend(self._splitter.feed(self._bytes()))
            if time.monotonic() - began > self._timeout_s and not self._ready:
                raise SourceError(f"{self.name}: no JPEG for {self._timeout_s:g} s")
        return functools.partial(decode, self._ready.popleft())

    def _bytes(self) -> bytes:
        try:
            data: bytes = self._response.read1(BLOCK)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise SourceError(f"{self.name}: broke off ({error})") from None
        if not data:
            raise SourceError(f"{self.name}: ended")
        return data

    def close(self) -> None:
        """Hang up."""
        self._response.close()


def public_name(address: str) -> str:
    """Return an address without the name and password that may be in it."""
    parts = urllib.parse.urlsplit(address)
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _request(address: str) -> urllib.request.Request:
    parts = urllib.parse.urlsplit(address)
    request = urllib.request.Request(public_name(address), headers={"User-Agent": "edge-detect"})
    if parts.username is not None:
        secret = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        request.add_header("Authorization", "Basic " + base64.b64encode(secret.encode()).decode())
    return request
