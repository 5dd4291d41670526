"""Video files, read by OpenCV: every frame, in order."""

import functools
import threading
from collections.abc import Iterator
from pathlib import Path

from edge_runtime.errors import SourceError
from edge_runtime.judging.results import SourceState
from edge_runtime.pixels.file_types import SUFFIXES
from edge_runtime.sources import Frame, Gap, Source
from edge_runtime.sources.opencv import cv2, picture_of

PICTURE_STARTS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\x00", b"MM\x00*")

WHOLE = 0.9
"""A video that gives less than this share of the frames that its container promises (some estimate it) broke off."""


def looks_like_video(path: Path) -> bool:
    """Tell whether a file should be opened as a video: it is neither named nor does it begin as a picture."""
    if path.suffix.lower() in SUFFIXES:
        return False
    with path.open("rb") as file:
        return not file.read(4).startswith(PICTURE_STARTS)


class Video(Source):
    """A video file."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path)
        capture = cv2.VideoCapture(self.name, cv2.CAP_FFMPEG)
        opened = capture.isOpened()
        capture.release()
        if not opened:
            raise SourceError(f"{path}: neither a picture nor a video that can be read")

    def frames(self, stop: threading.Event) -> Iterator[Frame | Gap]:
        """Yield every frame; one that ends before its container says so is told of."""
        capture = cv2.VideoCapture(self.name, cv2.CAP_FFMPEG)
        fps, promised = capture.get(cv2.CAP_PROP_FPS), int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        rate, index = fps if 1.0 <= fps <= 240.0 else None, 0
        try:
            while not stop.is_set():
                read, image = capture.read()
                if not read:
                    break
                yield Frame(self.name, index, functools.partial(picture_of, image), fps=rate)
                index += 1
        finally:
            capture.release()
        if not stop.is_set() and index < WHOLE * promised:
            yield Gap(
                self.name, SourceState.ENDED, f"{self.name}: breaks off after {index} of {promised} frames", failed=True
            )
        elif index == 0:
            yield Gap(self.name, SourceState.ENDED, f"{self.name}: no frame in it can be read", failed=True)
