"""Finds where the picture's size changes within a video: OpenCV squeezes all frames into the first size."""

import re
import tempfile
from pathlib import Path

from edge_runtime.sources.opencv import cv2

PARAMETERS = re.compile(rb"\x00\x00\x01(?:[\x07\x27\x47\x67].|\x42\x01)(.+?)(?=\x00\x00\x01)", re.DOTALL)
"""A sequence parameter set of H.264 (ITU-T H.264, section 7.4.1) or H.265, up to the next start code."""

HEAD_BYTES = 1024
"""Parameter sets come at the beginning of a packet."""

VP8_KEYFRAME = b"\x9d\x01\x2a"
"""Start code of a VP8 keyframe, followed by width and height (RFC 6386, section 9.1)."""


class PacketSizes:
    """Reads the packets of a video besides its frames, one for each frame.

    Args:
        name: under which OpenCV opens the video.
    """

    def __init__(self, name: str) -> None:
        self._packets = cv2.VideoCapture(name, cv2.CAP_FFMPEG, [cv2.CAP_PROP_FORMAT, -1])
        self._codec = int(self._packets.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little").upper()
        self._parameters: bytes | None = None
        self._size: tuple[int, int] | None = None
        if self._codec not in (b"H264", b"HEVC", b"VP80"):
            self._packets.release()

    def next_changes(self) -> bool:
        """Return whether the next frame has another size than the first."""
        read, packet = self._packets.read()
        if not read or packet is None:
            return False
        head = packet.ravel()[:HEAD_BYTES].tobytes()
        size = None
        if self._codec == b"VP80":
            if head[3:6] == VP8_KEYFRAME:
                size = (int.from_bytes(head[6:8], "little") & 0x3FFF, int.from_bytes(head[8:10], "little") & 0x3FFF)
        elif (found := PARAMETERS.search(head)) is not None and found[1] != self._parameters:
            self._parameters = found[1]
            size = self._decoded_size(packet.tobytes())
        if size is None or self._size is None:
            self._size = self._size or size
            return False
        return size != self._size

    def _decoded_size(self, packet: bytes) -> tuple[int, int] | None:
        """Return the size of a keyframe, decoded by itself."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / ("frame.h264" if self._codec == b"H264" else "frame.hevc")
            path.write_bytes(packet)
            capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
            size = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
            capture.release()
        return size if all(size) else None

    def close(self) -> None:
        """Close the video."""
        self._packets.release()
