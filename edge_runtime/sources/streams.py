"""Streams from the network: MJPEG over HTTP with a small client of our own, RTSP through OpenCV's FFmpeg."""

import functools
import socket
from collections.abc import Callable
from urllib.parse import urlsplit

from edge_runtime.errors import SourceError
from edge_runtime.sources import SourceOptions
from edge_runtime.sources.live import CONNECT_S, Capture, LiveSource, Load
from edge_runtime.sources.mjpeg import HttpCamera, public_name

PORTS = {"rtsp": 554, "rtsps": 322}
"""Where a stream is found whose address names no port (RFC 7826, section 4.2)."""


class RtspCamera:
    """An open RTSP stream."""

    def __init__(self, address: str, options: SourceOptions) -> None:
        from edge_runtime.sources.opencv import cv2

        self.name = public_name(address)
        _reach(address, min(options.stall_timeout_s, CONNECT_S))
        timeout_ms = max(1, round(1000 * options.stall_timeout_s))
        settings = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, timeout_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, timeout_ms]
        self._capture = cv2.VideoCapture(address, cv2.CAP_FFMPEG, settings)
        if not self._capture.isOpened():
            raise SourceError(f"{self.name}: can't be opened; check address, name and password, and that it sends")

    def read(self) -> Load:
        """Wait for the next frame; raises SourceError when none comes any more."""
        from edge_runtime.sources.opencv import picture_of

        read, image = self._capture.read()
        if not read or image is None:
            raise SourceError(f"{self.name}: gives no frame")
        return functools.partial(picture_of, image)

    def close(self) -> None:
        """Hang up."""
        self._capture.release()


def _reach(address: str, timeout_s: float) -> None:
    """Connect once, since OpenCV's timeout for opening must also hold the wait for a first whole picture.

    Raises:
        SourceError: nobody answers there.
    """
    parts = urlsplit(address)
    if parts.scheme not in PORTS:
        return
    try:
        socket.create_connection((parts.hostname, parts.port or PORTS[parts.scheme]), timeout_s).close()
    except OSError as error:
        raise SourceError(f"{public_name(address)}: can't be reached ({error})") from None


def stream_source(address: str, options: SourceOptions) -> LiveSource:
    """Return the stream at `address`, http(s) or rtsp(s), not opened yet.

    Raises:
        SourceError: the address can't be one.
    """
    try:
        parts = urlsplit(address)
        usable = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable:
        raise SourceError(f"{address!r} is no address; give http://HOST:PORT/PATH or rtsp://HOST:PORT/PATH")
    kind: Callable[[str, SourceOptions], Capture] = HttpCamera if parts.scheme in ("http", "https") else RtspCamera
    return LiveSource(public_name(address), functools.partial(kind, address, options), options)
