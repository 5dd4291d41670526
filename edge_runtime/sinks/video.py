"""A video of the frames with boxes, verdicts and the frame rate drawn in."""

import contextlib
import time
from pathlib import Path

import numpy as np
from PIL import Image

from edge_runtime.errors import UsageError
from edge_runtime.judging.rate import RollingRate
from edge_runtime.pipeline import Judged
from edge_runtime.pixels.drawing import draw_result
from edge_runtime.sinks import Sink
from edge_runtime.sinks.disk import has_room, rotate
from edge_runtime.sinks.encoders import CODECS, Writer, open_writer

LIVE_FPS = 15.0
"""Frame rate for live sources: frames are repeated or left out, so that the video runs as fast as the clock."""

LONGEST_GAP_S, LONGEST_STILL_S = 2.0, 60.0
"""The longest that a frame is shown, of a live source and of a file."""

CHANGING_FPS = 30.0
"""Frame rate for videos whose own rate changes."""


class VideoSink(Sink):
    """One video file; frames are scaled to the size of the first. A file that is there already is rotated.

    Args:
        path: ends in .mp4, .mkv or .avi; UsageError if it can't be written.
        rotate_at: size in bytes at which a new file is started; None never.
    """

    def __init__(self, path: Path, *, rotate_at: int | None = None) -> None:
        if path.suffix.lower() not in CODECS:
            raise UsageError(f"{path}: a video must end in {', '.join(CODECS)}")
        if not path.parent.is_dir():
            raise UsageError(f"{path}: {path.parent} is not a folder; create it first")
        super().__init__(path)
        self._path, self._rotate_at = path, rotate_at
        self._writer: Writer | None = None
        self._size = (0, 0)
        self._fps = LIVE_FPS
        # The last frame's clock (its video, or None for real time), its time on it, the share of a frame still due, its
        # pixels.
        self._last: tuple[str | None, float] | None = None
        self._due = 0.0
        self._before: np.ndarray | None = None
        self._rate = RollingRate()

    def write(self, judged: Judged) -> None:
        """Draw and write one frame; where the disk is full it is counted as lost."""
        picture = judged.shown()
        if picture is None:
            return
        self._rate.add()
        if not has_room(self._path.parent):
            self.losses.add("no room")
            return
        if self._writer is not None and self._rotate_at is not None:
            # If the file is gone or can't be renamed, the video continues.
            with contextlib.suppress(OSError):
                if self._path.stat().st_size >= self._rotate_at:
                    # Renamed while it is open: if that fails, no new file overwrites it.
                    rotate(self._path)
                    self.close()
        if self._writer is None:
            self._writer = self._open(judged)
        times = self._times(judged)
        if times:
            result = judged.result
            caption = f"{self._rate.per_second:.1f} FPS  {result.device} {result.precision}  {result.notice or ''}"
            drawn = fitted(draw_result(picture, result, caption.rstrip()), self._size)
            pixels = np.ascontiguousarray(np.asarray(drawn)[:, :, ::-1])
            # Repeat the previous frame, which was on screen until now.
            late, self._before = pixels if self._before is None else self._before, pixels
            try:
                for shown in [late] * (times - 1) + [pixels]:
                    self._writer.write(shown)
                self.losses.over()
            except OSError as error:
                self.losses.add(error.strerror or str(error))

    def _times(self, judged: Judged) -> int:
        """Return how many times a frame is written, so that the video keeps the pace of its source.

        Each frame of a file is written at least once; frames of live sources are left out if there are too many.
        """
        if judged.position_s is None:
            now, at_least, longest_s = time.monotonic(), 0, LONGEST_GAP_S
        else:
            now, at_least, longest_s = judged.position_s, 1, LONGEST_STILL_S
        # Several videos alternate, so the clock may jump: count such a frame once.
        clock = None if judged.position_s is None else judged.result.source
        before_s = self._last[1] if self._last is not None and self._last[0] == clock else now
        self._last = (clock, now)
        self._due += min(now - before_s, longest_s) * self._fps if now > before_s else 1.0
        times = max(at_least, round(self._due))
        self._due -= times
        return times

    def _open(self, judged: Judged) -> Writer:
        result = judged.result
        # Codecs need even sides.
        self._size = (result.width + result.width % 2, result.height + result.height % 2)
        self._fps = LIVE_FPS
        if judged.position_s is not None:
            rate = judged.fps or CHANGING_FPS
            # An unusual rate is the average of a changing one.
            usual = any(abs(rate * by - round(rate * by)) < 0.01 for by in (1.0, 1.001))
            self._fps = rate if usual else CHANGING_FPS
        self._last, self._due, self._before = None, 0.0, None
        try:
            if self._path.is_file() and self._path.stat().st_size:
                rotate(self._path)
        except OSError as error:
            raise UsageError(f"{self._path}: can't be renamed ({error.strerror}); choose another place") from None
        return open_writer(self._path, self._fps, self._size)

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.release()
            self._writer = None


def fitted(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return `picture` scaled to fit `size` (width, height), centred on black."""
    if picture.size == size:
        return picture
    scale = min(size[0] / picture.width, size[1] / picture.height)
    inner = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))
    canvas = Image.new("RGB", size)
    canvas.paste(inner, ((size[0] - inner.width) // 2, (size[1] - inner.height) // 2))
    return canvas
