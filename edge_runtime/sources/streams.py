"""Streams from the network: MJPEG over HTTP with a small client of our own, RTSP through OpenCV's FFmpeg."""

import functools
from collections.abc import Callable
from urllib.parse import urlsplit

from edge_runtime.errors import SourceError
from edge_runtime.sources import SourceOptions
from edge_runtime.sources.live import Capture, LiveSource, Load
from edge_runtime.sources.mjpeg import HttpCamera, public_name


class RtspCamera:
    """An open RTSP stream."""

    def __init__(self, address: str, options: SourceOptions) -> None:
        from edge_runtime.sources.opencv import cv2

        self.name = public_name(address)
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
