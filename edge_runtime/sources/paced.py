"""A video file as a live source."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone

from edge_runtime.sources import Frame, Gap, Source

USUAL_FPS = 25.0
"""Rate of a video that does not state its own."""


class PacedVideo(Source):
    """A video file played at its own speed; like a camera, it drops the frames that come too fast."""

    live = True

    def __init__(self, video: Source) -> None:
        self.name, self._video = video.name, video

    def frames(self, stop: threading.Event) -> Iterator[Frame | Gap]:
        """Yield each frame at its time in the video."""
        began: float | None = None
        for item in self._video.frames(stop):
            if isinstance(item, Frame):
                position_s = item.position_s or item.index / (item.fps or USUAL_FPS)
                # Some containers don't begin at 0.
                began = time.monotonic() - position_s if began is None else began
                stop.wait(max(0.0, began + position_s - time.monotonic()))
                item = replace(item, time=datetime.now(timezone.utc), taken=time.monotonic())
            yield item
