"""Video files, read by OpenCV: every frame, in order."""

import functools
import re
import tempfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from edge_runtime.errors import SourceError
from edge_runtime.pixels.provenance import video_provenance
from edge_runtime.sources import EXPECTED, Frame, Gap, Source
from edge_runtime.sources.containers import is_cut_off
from edge_runtime.sources.opencv import CvView, cv2, openable, pixel_aspect

COVER_FPS = 90_000.0
"""FFmpeg's frame rate of a cover picture, which it presents as a video of one frame."""


class Video(Source):
    """A video file."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path)
        self._open().release()

    def files(self) -> Iterable[Path]:
        """Return the file."""
        return [self.path]

    def frames(self, stop: threading.Event) -> Iterator[Frame | Gap]:
        """Yield every frame. A video that was cut off, or whose size changes, yields a gap at its end."""
        capture, index, failure = self._open(), 0, None
        says = functools.cache(functools.partial(video_provenance, self.path))
        rate, aspect = capture.get(cv2.CAP_PROP_FPS), pixel_aspect(capture)
        with openable(self.path) as name:
            packets = PacketSizes(name)
        try:
            while not stop.is_set():
                read, image = capture.read()
                if not read:
                    break
                if packets.next_changes():
                    failure = f"the picture's size changes after {index} frames, the rest is not judged; split it there"
                    break
                yield Frame(
                    self.name,
                    index,
                    CvView(image, aspect),
                    fps=rate if 1.0 <= rate <= 240.0 else None,
                    position_s=capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3,
                    provenance=says,
                )
                index += 1
        finally:
            capture.release()
            packets.close()
        if index == 0:
            failure = "no frame in it can be read"
        elif failure is None and is_cut_off(self.path):
            failure = f"the file is cut off, the video breaks off after {index} frames"
        if failure is not None and not stop.is_set():
            yield Gap.failure(self.name, f"{self.name}: {failure}")

    def _open(self) -> cv2.VideoCapture:
        with openable(self.path) as name:
            capture = cv2.VideoCapture(name, cv2.CAP_FFMPEG)
        if not capture.isOpened():
            raise SourceError(f"{self.path}: neither a picture nor a video that can be read")
        if capture.get(cv2.CAP_PROP_FPS) >= COVER_FPS:
            raise SourceError(f"{self.path}: sound with a cover picture; {EXPECTED}")
        return capture


PARAMETERS = re.compile(rb"\x00\x00\x01(?:[\x07\x27\x47\x67].|\x42\x01)(.+?)(?=\x00\x00\x01)", re.DOTALL)
"""A sequence parameter set of H.264 (ITU-T H.264, section 7.4.1) or H.265, up to the next start code."""

VP8_KEYFRAME = b"\x9d\x01\x2a"
"""Start code of a VP8 keyframe, followed by width and height (RFC 6386, section 9.1)."""


class PacketSizes:
    """Finds where the picture's size changes: OpenCV squeezes all frames of a video into the first one's size.

    It reads the video's packets besides its frames, one for each frame.
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
        # Parameter sets come at the beginning of a packet.
        head = packet.ravel()[:1024].tobytes()
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
            path = Path(folder, "frame.h264" if self._codec == b"H264" else "frame.hevc")
            path.write_bytes(packet)
            capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
            size = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
            capture.release()
        return size if all(size) else None

    def close(self) -> None:
        """Close the video."""
        self._packets.release()
