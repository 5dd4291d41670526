"""Video files, read by OpenCV: every frame, in order."""

import functools
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from edge_runtime.errors import SourceError
from edge_runtime.sources import Frame, Gap, Source
from edge_runtime.sources.containers import is_cut_off
from edge_runtime.sources.opencv import cv2, openable, picture_of, pixel_aspect


class Video(Source):
    """A video file."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path)
        self._open().release()

    def files(self) -> Iterable[Path]:
        """Return the file."""
        return [self.path]

    def frames(self, stop: threading.Event) -> Iterator[Frame | Gap]:
        """Yield every frame; a video that was cut off yields a gap at its end."""
        capture, index = self._open(), 0
        rate, aspect = capture.get(cv2.CAP_PROP_FPS), pixel_aspect(capture)
        try:
            while not stop.is_set():
                read, image = capture.read()
                if not read:
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
        if index == 0 and not stop.is_set():
            yield Gap.failure(self.name, f"{self.name}: no frame in it can be read")
        elif not stop.is_set() and is_cut_off(self.path):
            yield Gap.failure(self.name, f"{self.name}: the file is cut off, the video breaks off after {index} frames")

    def _open(self) -> cv2.VideoCapture:
        with openable(self.path) as name:
            capture = cv2.VideoCapture(name, cv2.CAP_FFMPEG)
        if not capture.isOpened():
            raise SourceError(f"{self.path}: neither a picture nor a video that can be read")
        return capture
