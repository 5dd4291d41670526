"""A video of what was seen, with boxes, verdicts and the rolling FPS drawn in."""

import contextlib
import time
from pathlib import Path
from types import TracebackType

import numpy as np
from PIL import Image

from edge_runtime.errors import UsageError
from edge_runtime.judging.rate import RollingRate
from edge_runtime.pipeline import Judged
from edge_runtime.pixels.drawing import draw_result
from edge_runtime.sinks.disk import Losses, has_room, rotate
from edge_runtime.sources.opencv import cv2

CODECS = {".mp4": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}
"""An .avi can be played even where the power failed while it was written."""

LIVE_FPS = 15.0
"""Of a video of live sources: a frame is repeated or left out, so that time in the video is time that passed."""

LONGEST_GAP_S = 2.0
"""A longer gap in a live source is cut to this."""


class VideoSink:
    """One video file; frames of another size than the first are fitted into it.

    Args:
        path: ends in .mp4, .mkv or .avi.
        rotate_at: bytes from which the file is set aside and a new one begun; None never.

    Raises:
        UsageError: it can't be written.
    """

    def __init__(self, path: Path, *, rotate_at: int | None = None) -> None:
        if path.suffix.lower() not in CODECS:
            raise UsageError(f"{path}: a video must end in {', '.join(CODECS)}")
        if not path.parent.is_dir():
            raise UsageError(f"{path}: there is no folder {path.parent}; make it first")
        self.path, self._losses = path, Losses(path)
        self._rotate_at = rotate_at
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._fps = LIVE_FPS
        self._next = 0.0
        self._rate = RollingRate()

    @property
    def lost(self) -> int:
        """Frames that could not be written."""
        return self._losses.count

    def write(self, judged: Judged) -> None:
        """Draw and write one frame; where the disk is full it is counted as lost."""
        if judged.picture is None:
            return
        self._rate.add()
        if not has_room(self.path.parent):
            self._losses.add("no room")
            return
        self._losses.over()
        self._rotate_when_long()
        if self._writer is None:
            self._open(judged)
        times = 1 if judged.fps is not None else self._times(time.monotonic())
        if times and self._writer is not None:
            pixels = self._drawn(judged, judged.picture)
            for _ in range(times):
                self._writer.write(pixels)

    def _drawn(self, judged: Judged, picture: Image.Image) -> np.ndarray:
        caption = f"{self._rate.per_second:.1f} FPS  {judged.result.device} {judged.result.precision}"
        if judged.result.notice:
            caption += f"  {judged.result.notice}"
        drawn = fitted(draw_result(picture, judged.result, caption), self._size)
        return np.ascontiguousarray(np.asarray(drawn)[:, :, ::-1])

    def _times(self, now: float) -> int:
        """Return how often a live frame is written, so that the video keeps pace with the clock."""
        self._next = max(self._next, now - LONGEST_GAP_S)
        times = 0
        while self._next <= now:
            self._next += 1.0 / self._fps
            times += 1
        return times

    def _open(self, judged: Judged) -> None:
        result = judged.result
        # Codecs want even sides.
        self._size = (result.width + result.width % 2, result.height + result.height % 2)
        self._fps, self._next = judged.fps or LIVE_FPS, time.monotonic()
        codec = cv2.VideoWriter.fourcc(*CODECS[self.path.suffix.lower()])
        self._writer = cv2.VideoWriter(str(self.path), cv2.CAP_FFMPEG, codec, self._fps, self._size)
        if not self._writer.isOpened():
            raise UsageError(f"{self.path}: no video can be written there; choose another place")

    def _rotate_when_long(self) -> None:
        if self._writer is None or self._rotate_at is None:
            return
        # A file that was taken away, or a folder that allows no renaming: the video goes on as it is.
        with contextlib.suppress(OSError):
            if self.path.stat().st_size >= self._rotate_at:
                # Renamed first, while it is open: where that is not allowed, a new file would take its place.
                rotate(self.path)
                self._close()

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.release()
            self._writer = None

    def __enter__(self) -> "VideoSink":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()


def fitted(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return `picture` of `size` (width, height), shrunk or enlarged as a whole onto black where it is another."""
    if picture.size == size:
        return picture
    scale = min(size[0] / picture.width, size[1] / picture.height)
    inner = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))
    canvas = Image.new("RGB", size)
    canvas.paste(inner, ((size[0] - inner.width) // 2, (size[1] - inner.height) // 2))
    return canvas
