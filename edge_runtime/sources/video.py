"""Video files, read by OpenCV: every frame, in order."""

import functools
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from edge_runtime.errors import SourceError
from edge_runtime.sources import Frame, Gap, Source
from edge_runtime.sources.opencv import cv2, openable, picture_of

WHOLE = 0.9
"""A video with fewer frames than this share of its container's frame count, which may be an estimate, broke off."""


class Video(Source):
    """A video file."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path)
        self._open().release()

    def files(self) -> Iterable[Path]:
        """Return the file."""
        return [self.path]

    def frames(self, stop: threading.Event) -> Iterator[Frame | Gap]:
        """Yield every frame; a video that ends too early yields a gap at its end."""
        capture, index = self._open(), 0
        fps, promised = capture.get(cv2.CAP_PROP_FPS), int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        try:
            while not stop.is_set():
                read, image = capture.read()
                if not read:
                    break
                load = functools.partial(picture_of, image)
                yield Frame(self.name, index, load, fps=fps if 1.0 <= fps <= 240.0 else None)
                index += 1
        finally:
            capture.release()
        if not stop.is_set() and index < WHOLE * promised:
            yield Gap.failure(self.name, f"{self.name}: breaks off after {index} of {promised} frames")
        elif index == 0:
            yield Gap.failure(self.name, f"{self.name}: no frame in it can be read")

    def _open(self) -> cv2.VideoCapture:
        with openable(self.path) as name:
            capture = cv2.VideoCapture(name, cv2.CAP_FFMPEG)
        if not capture.isOpened():
            raise SourceError(f"{self.path}: neither a picture nor a video that can be read")
        return capture
