"""Pictures of new verdicts, only on request: few, with faces blurred if wanted, and deleted after a time."""

import contextlib
import functools
import io
import os
import re
import time
from pathlib import Path

from PIL import Image, ImageFilter

from edge_runtime.atomic import write_atomic
from edge_runtime.defaults import SNAPSHOT_DAYS
from edge_runtime.errors import UsageError
from edge_runtime.judging.results import FrameResult, iso_time
from edge_runtime.model.contract import Verdict
from edge_runtime.pipeline import Judged
from edge_runtime.pixels.drawing import draw_result
from edge_runtime.sinks import Sink
from edge_runtime.sinks.disk import has_room

MEGABYTE = 1 << 20
NAME = re.compile(r"edge-\d{8}T\d{9}Z-.*\.jpg")
TIDY_S = 60.0
"""Time between two searches for old snapshots while none is written."""


class SnapshotSink(Sink):
    """A folder of JPEGs: the whole frame with boxes, whenever a face gets its verdict or the verdict changes.

    Snapshots older than `max_age_s` are deleted, and the oldest while all together are larger than `max_bytes`, but no
    files of other names. The folder is created if missing, for its owner alone; UsageError if it can't be used.
    """

    def __init__(
        self,
        folder: Path,
        *,
        blur: bool = False,
        max_age_s: float = SNAPSHOT_DAYS * 86400.0,
        max_bytes: int = 500 * MEGABYTE,
    ) -> None:
        super().__init__(folder)
        self._folder = folder
        self._blur, self._max_age_s, self._max_bytes = blur, max_age_s, max_bytes
        self._verdicts: dict[tuple[str, int], Verdict] = {}
        self._tidied = -TIDY_S
        # When each snapshot was made, on the monotonic clock: the board's own clock may be set while we run.
        self._made: dict[Path, float] = {}
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for partial in folder.glob(".edge-*.jpg.partial"):
                partial.unlink()
            if folder.stat().st_mode & 0o077:
                if any(not NAME.fullmatch(path.name) for path in folder.iterdir()):
                    raise UsageError(f"{folder}: others can open it; run chmod 700 on it, or choose another folder")
                folder.chmod(0o700)
        except OSError as error:
            raise UsageError(f"{folder}: can't be used ({error.strerror}); choose another folder") from None
        if not os.access(folder, os.W_OK):
            raise UsageError(f"{folder}: can't be written to; choose another folder")

    def write(self, judged: Judged) -> None:
        """Save the frame if it has a new verdict."""
        result, picture = judged.result, judged.picture
        if picture is not None and self._is_news(result):
            if self._blur:
                picture = blurred(picture, [face.box for face in result.faces])
            file = io.BytesIO()
            draw_result(picture, result, result.notice or "").save(file, "JPEG", quality=90)
            self._tidy(file.tell())
            path = self._folder / snapshot_name(result)
            try:
                if not has_room(self._folder, file.tell()):
                    raise OSError("no room")
                write_atomic(path, file.getvalue(), opener=functools.partial(os.open, mode=0o600))
                self._made[path] = time.monotonic()
                self.losses.over()
            except OSError as error:
                self.losses.add(error.strerror or str(error))
        elif time.monotonic() - self._tidied >= TIDY_S:
            self._tidy(0)

    def _is_news(self, result: FrameResult) -> bool:
        if len(self._verdicts) > 10_000:
            self._verdicts.clear()
        news = False
        for face in result.faces:
            if face.track is None:
                news = True
            elif self._verdicts.get((result.source, face.track)) is not face.verdict:
                self._verdicts[(result.source, face.track)] = face.verdict
                news = news or face.verdict is not Verdict.UNCERTAIN
        return news

    def _tidy(self, coming: int) -> None:
        """Delete what is too old, then the oldest until there is room for `coming` bytes."""
        self._tidied = now = time.monotonic()
        made, sizes = {}, {}
        for path in self._folder.glob("*.jpg"):
            # Somebody else may delete it after it was listed.
            with contextlib.suppress(OSError):
                if NAME.fullmatch(path.name):
                    stat = path.stat()
                    # A time in the future comes from a wrong clock, then or now.
                    age_s = max(0.0, time.time() - stat.st_mtime)
                    made[path], sizes[path] = self._made.get(path, now - age_s), stat.st_size
        total = sum(sizes.values()) + coming
        for path in sorted(made, key=lambda path: (made[path], path)):
            if now - made[path] > self._max_age_s or total > self._max_bytes:
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)
                    total -= sizes.pop(path)
        self._made = {path: made[path] for path in sizes}

    def close(self) -> None:
        """Delete what is too old."""
        self._tidy(0)


def snapshot_name(result: FrameResult) -> str:
    """Return a snapshot's file name: time, source, frame, verdicts."""
    moment = re.sub(r"[-:.]", "", iso_time(result.time))
    source = re.sub(r"[^A-Za-z0-9]+", "_", result.source).strip("_")[-60:]
    verdicts = "-".join(sorted({face.verdict.value for face in result.faces}))
    return f"edge-{moment}-{source}-{result.frame}-{verdicts}.jpg"


def blurred(picture: Image.Image, boxes: list[tuple[int, int, int, int]]) -> Image.Image:
    """Return a copy of `picture` in which faces at `boxes` (left, top, right, bottom) can't be recognized."""
    copy = picture.copy()
    for left, top, right, bottom in boxes:
        margin = max(right - left, bottom - top) // 4
        upper_left = (max(0, left - margin), max(0, top - 2 * margin))
        box = (*upper_left, min(picture.width, right + margin), min(picture.height, bottom + margin))
        face = copy.crop(box)
        # Eight cells a side keep no features; the blur only looks better.
        mosaic = face.resize((8, 8), Image.Resampling.BOX).resize(face.size, Image.Resampling.NEAREST)
        copy.paste(mosaic.filter(ImageFilter.GaussianBlur(max(1, margin // 4))), box)
    return copy
