"""Streams from the network: JPEGs over HTTP with a client of our own, RTSP through OpenCV's FFmpeg."""

import functools
import socket

from edge_runtime.errors import SourceError
from edge_runtime.sources import SourceOptions
from edge_runtime.sources.address import Address, parse_address
from edge_runtime.sources.http_camera import HttpCamera
from edge_runtime.sources.reconnect import CONNECT_S, Capture, LiveSource

PORTS = {"rtsp": 554, "rtsps": 322}
"""Default ports (RFC 7826, section 4.2)."""


def stream_source(text: str, options: SourceOptions) -> LiveSource:
    """Return the stream at an address, http(s) or rtsp(s), not opened yet; raises SourceError if it isn't an
    address.
    """
    address = parse_address(text)
    open_capture = HttpCamera if address.scheme in ("http", "https") else open_rtsp
    return LiveSource(address.name, functools.partial(open_capture, address, options), options)


def open_rtsp(address: Address, options: SourceOptions) -> Capture:
    """Open an RTSP stream; raises SourceError if nothing answers there, or it can't be opened."""
    from edge_runtime.sources.opencv import CvCapture, cv2

    if address.scheme in PORTS:
        # Connect first: OpenCV's timeout for opening must be long enough for the first whole picture.
        where = (address.host, address.port or PORTS[address.scheme])
        try:
            socket.create_connection(where, min(options.stall_timeout_s, CONNECT_S)).close()
        except OSError as error:
            raise SourceError(f"{address.name}: can't be reached ({error})") from None
    timeout_ms = max(1, round(1000 * options.stall_timeout_s))
    settings = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, timeout_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, timeout_ms]
    hint = "; check address, name and password, and that it sends"
    return CvCapture(address.name, address.given, cv2.CAP_FFMPEG, settings, hint)
