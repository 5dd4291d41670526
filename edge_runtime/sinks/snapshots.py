"""Pictures of what was judged, only where they were asked for: few, blurred if wanted, and not for ever."""

import contextlib
import io
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from PIL import Image, ImageFilter

from edge_runtime.errors import UsageError
from edge_runtime.judging.results import FrameResult, iso_time
from edge_runtime.model.contract import Verdict
from edge_runtime.pipeline import Judged
from edge_runtime.pixels.drawing import draw_result
from edge_runtime.sinks.disk import Losses, has_room

MEGABYTE = 1 << 20
PREFIX = "edge-"
TIDY_S = 60.0
"""How often old snapshots are looked for while none is written."""


class SnapshotSink:
    """A folder of JPEGs: one for each face as its verdict is found or changes, whole frames with boxes.

    Only files that this sink named are ever deleted.

    Args:
        folder: made where it is missing; only its owner may look into it.
        blur: make every face in them unrecognizable.
        max_age_s: older ones are deleted.
        max_bytes: the oldest are deleted until they are no more than this together.

    Raises:
        UsageError: the folder can't be written to.
    """

    def __init__(
        self, folder: Path, *, blur: bool = False, max_age_s: float = 7 * 86400.0, max_bytes: int = 500 * MEGABYTE
    ) -> None:
        self.folder, self._losses = folder, Losses(folder)
        self._blur, self._max_age_s, self._max_bytes = blur, max_age_s, max_bytes
        self._told: dict[tuple[str, int], Verdict] = {}
        self._tidied = -TIDY_S
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{folder}: can't be made ({error.strerror}); choose another folder") from None
        if not os.access(folder, os.W_OK):
            raise UsageError(f"{folder}: can't be written to; choose another folder")

    @property
    def lost(self) -> int:
        """Snapshots that could not be written."""
        return self._losses.count

    def write(self, judged: Judged) -> None:
        """Keep the frame where it tells something new."""
        if judged.picture is not None and self._tells_news(judged.result):
            data = self._jpeg(judged.picture, judged.result)
            self._tidy(len(data))
            self._save(self.folder / snapshot_name(judged.result), data)
        elif time.monotonic() - self._tidied >= TIDY_S:
            self._tidy(0)

    def _tells_news(self, result: FrameResult) -> bool:
        if len(self._told) > 10_000:
            self._told.clear()
        news = False
        for face in result.faces:
            if face.track is None:
                news = True
            elif self._told.get((result.source, face.track)) is not face.verdict:
                self._told[(result.source, face.track)] = face.verdict
                news = news or face.verdict is not Verdict.UNCERTAIN
        return news

    def _jpeg(self, picture: Image.Image, result: FrameResult) -> bytes:
        if self._blur:
            picture = blurred(picture, [face.box for face in result.faces])
        file = io.BytesIO()
        draw_result(picture, result, result.notice or "").save(file, "JPEG", quality=90)
        return file.getvalue()

    def _save(self, path: Path, data: bytes) -> None:
        temporary = path.with_suffix(".part")
        try:
            if not has_room(self.folder, len(data)):
                raise OSError("no room")
            temporary.write_bytes(data)
            temporary.replace(path)
            self._losses.over()
        except OSError as error:
            self._losses.add(error.strerror or str(error))
            # Where the file system is read-only now, not even that is possible.
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _tidy(self, coming: int) -> None:
        """Delete what is too old, then the oldest until there is room for `coming` bytes."""
        self._tidied = time.monotonic()
        kept = sorted(_ages(self.folder))
        total = sum(size for _, size, _ in kept) + coming
        for changed, size, path in kept:
            if time.time() - changed > self._max_age_s or total > self._max_bytes:
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)
                    total -= size

    def __enter__(self) -> "SnapshotSink":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tidy(0)


def _ages(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """Yield time of change and size of each snapshot."""
    for path in own_snapshots(folder):
        # Somebody else may delete it between the two looks.
        with contextlib.suppress(OSError):
            found = path.stat()
            yield found.st_mtime, found.st_size, path


def own_snapshots(folder: Path) -> list[Path]:
    """Return the snapshots in `folder`, by their names."""
    return [path for path in folder.glob(f"{PREFIX}*.jpg") if re.fullmatch(r"edge-\d{8}T\d{9}Z-.*\.jpg", path.name)]


def snapshot_name(result: FrameResult) -> str:
    """Return a snapshot's name: time, source, frame, verdicts."""
    moment = re.sub(r"[-:.]", "", iso_time(result.time))
    source = re.sub(r"[^A-Za-z0-9]+", "_", result.source).strip("_")[-60:]
    verdicts = "-".join(sorted({face.verdict.value for face in result.faces}))
    return f"{PREFIX}{moment}-{source}-{result.frame}-{verdicts}.jpg"


def blurred(picture: Image.Image, boxes: list[tuple[int, int, int, int]]) -> Image.Image:
    """Return a copy of `picture` with the faces at `boxes` (left, top, right, bottom), and around, unrecognizable."""
    copy = picture.copy()
    for left, top, right, bottom in boxes:
        margin = max(right - left, bottom - top) // 4
        box = (
            max(0, left - margin),
            max(0, top - 2 * margin),
            min(picture.width, right + margin),
            min(picture.height, bottom + margin),
        )
        face = copy.crop(box)
        # Eight cells a side hold no features; the blur afterwards is for the eye.
        mosaic = face.resize((8, 8), Image.Resampling.BOX).resize(face.size, Image.Resampling.NEAREST)
        copy.paste(mosaic.filter(ImageFilter.GaussianBlur(max(1, margin // 4))), box)
    return copy
