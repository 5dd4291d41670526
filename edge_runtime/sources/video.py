"""Video files, read by OpenCV: every frame, in order."""

import functools
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from edge_runtime.errors import SourceError
from edge_runtime.sources import EXPECTED, Frame, Gap, Source
from edge_runtime.sources.containers import is_cut_off
from edge_runtime.sources.opencv import cv2, openable, picture_of, pixel_aspect
from edge_runtime.sources.packets import PacketSizes

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
                    functools.partial(picture_of, image, aspect),
                    fps=rate if 1.0 <= rate <= 240.0 else None,
                    position_s=capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3,
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
