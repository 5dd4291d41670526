"""Files that grow line by line: JSON lines and CSV, whole lines only, rotated when they grow too long."""

import contextlib
import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from edge_runtime.errors import UsageError
from edge_runtime.judging.results import FaceResult, FrameResult, iso_time
from edge_runtime.pipeline import Judged
from edge_runtime.sinks.disk import Losses, rotate


class LineFile:
    """A file to which whole lines are appended, each in the file when `append` returns.

    Where the disk is full, the line is taken back as a whole and counted in `lost`.

    Args:
        path: `-` is standard output.
        header: a first line of every file.
        rotate: bytes from which the file is set aside and begun anew; None never.

    Raises:
        UsageError: it can't be opened.
    """

    def __init__(self, path: Path | str, *, header: str | None = None, rotate: int | None = None) -> None:
        self.path, self._losses = Path(path), Losses("standard output" if str(path) == "-" else path)
        self._header, self._rotate = header, rotate
        self._standard = str(path) == "-"
        try:
            self._file = os.dup(1) if self._standard else self._open()
        except OSError as error:
            raise UsageError(f"{path}: can't be written ({error.strerror}); choose another place") from None
        self._begin()

    def _open(self) -> int:
        return os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def _begin(self) -> None:
        if not self._standard and _ends_within_a_line(self.path):
            # Power failed while a line was written: the next one is not to be part of it.
            self._write("")
        if self._header is not None and (self._standard or os.fstat(self._file).st_size == 0):
            self._write(self._header)

    def append(self, line: str) -> None:
        """Append `line`, which has no line end, or count it as lost."""
        if self._rotate is not None and not self._standard:
            self._rotate_when_long()
        reason = self._write(line)
        if reason is None:
            self._losses.over()
        else:
            self._losses.add(reason)

    @property
    def lost(self) -> int:
        """Lines that could not be written."""
        return self._losses.count

    def _write(self, line: str) -> str | None:
        """Write `line`, and return why it could not be."""
        data = line.encode("utf-8", "backslashreplace") + b"\n"
        done = 0
        try:
            while done < len(data):
                done += os.write(self._file, data[done:])
        except BrokenPipeError:
            raise
        except OSError as error:
            self._take_back(done)
            return error.strerror or str(error)
        return None

    def _take_back(self, size: int) -> None:
        """Remove the last `size` bytes, so that no half line is left."""
        if size and not self._standard:
            # A disk that fails may not even allow that.
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, max(0, os.fstat(self._file).st_size - size))

    def _rotate_when_long(self) -> None:
        if self._rotate is None or os.fstat(self._file).st_size < self._rotate:
            return
        try:
            rotate(self.path)
            fresh = self._open()
        except OSError:
            # The line goes into the long file rather than nowhere.
            return
        os.close(self._file)
        self._file = fresh
        self._begin()

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def _ends_within_a_line(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except OSError:
        return False


class JsonlSink:
    """One line of JSON a frame."""

    def __init__(self, path: Path | str, *, rotate: int | None = None) -> None:
        self._file = LineFile(path, rotate=rotate)

    @property
    def lost(self) -> int:
        """Results that could not be written."""
        return self._file.lost

    def write(self, judged: Judged) -> None:
        """Write one frame."""
        self._file.append(judged.result.to_json())

    def __enter__(self) -> "JsonlSink":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


COLUMNS = (
    *("source", "frame", "time", "state", "track", "left", "top", "right", "bottom", "detection"),
    *("score", "verdict", "reason", "latency_ms", "age_ms", "dropped", "device", "precision", "model", "error"),
    "notice",
)


class CsvSink:
    """One line a face, and one for a frame without a face."""

    def __init__(self, path: Path | str, *, rotate: int | None = None) -> None:
        self._file = LineFile(path, header=",".join(COLUMNS), rotate=rotate)

    @property
    def lost(self) -> int:
        """Lines that could not be written."""
        return self._file.lost

    def write(self, judged: Judged) -> None:
        """Write the faces of one frame."""
        for face in judged.result.faces or (None,):
            self._file.append(csv_line(row(judged.result, face)))

    def __enter__(self) -> "CsvSink":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def row(result: FrameResult, face: FaceResult | None) -> list[Any]:
    """Return the values of COLUMNS for a face of a frame, or for a frame without one."""
    of_face: Sequence[Any] = [None] * 8
    if face is not None:
        of_face = [face.track, *face.box, face.detection, face.score, face.verdict.value]
    track, left, top, right, bottom, detection, score, verdict = of_face
    return [
        *(result.source, result.frame, iso_time(result.time), result.state.value),
        *(track, left, top, right, bottom, detection),
        *(score, verdict, face.reason if face else None, round(result.latency_ms, 2), round(result.age_ms, 2)),
        *(result.dropped, result.device, result.precision, result.model, result.error, result.notice),
    ]


def csv_line(values: Sequence[Any]) -> str:
    """Return values as one line of CSV; line ends inside of a value become spaces, so that a line stays a line."""
    text = io.StringIO()
    flat = [" ".join(value.splitlines()) if isinstance(value, str) else value for value in values]
    csv.writer(text, lineterminator="").writerow(flat)
    return text.getvalue()
