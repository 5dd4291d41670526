"""Pictures of new verdicts, only on request: few, with faces blurred if wanted, and deleted after a time."""

import io
import re
from pathlib import Path

from PIL import Image, ImageFilter

from edge_runtime.defaults import SNAPSHOT_DAYS
from edge_runtime.judging.results import FrameResult, iso_time
from edge_runtime.model.contract import Verdict
from edge_runtime.pipeline import Judged
from edge_runtime.pixels.drawing import draw_result
from edge_runtime.sinks import Sink
from edge_runtime.sinks.kept import KeptFiles

MEGABYTE = 1 << 20
JPEG_SIDE = 65_500
"""The most pixels a side of a JPEG that libjpeg writes."""

NAME = re.compile(r"edge-\d{8}T\d{9}Z-.*\.jpg")


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
        self._kept = KeptFiles(folder, NAME, max_age_s=max_age_s, max_bytes=max_bytes)
        self._blur = blur
        self._verdicts: dict[tuple[str, int], Verdict] = {}

    def write(self, judged: Judged) -> None:
        """Save the frame if it has a new verdict."""
        result = judged.result
        if self._is_news(result) and (picture := judged.shown()) is not None:
            if self._blur:
                picture = blurred(picture, [face.box for face in result.faces])
            file, drawn = io.BytesIO(), draw_result(picture, result, result.notice or "")
            drawn.thumbnail((JPEG_SIDE, JPEG_SIDE))
            drawn.save(file, "JPEG", quality=90)
            try:
                self._kept.save(snapshot_name(result), file.getvalue())
                self.losses.over()
            except OSError as error:
                self.losses.add(error.strerror or str(error))
        else:
            self._kept.tidy_if_due()

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

    def close(self) -> None:
        """Delete what is too old."""
        self._kept.tidy()


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
