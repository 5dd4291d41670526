"""Files of lines, JSON and CSV: only whole lines, and a new file when one grows too long."""

import contextlib
import csv
import io
import os
import re
import stat
from pathlib import Path
from typing import Any

from edge_runtime.errors import UsageError
from edge_runtime.judging.summary import FileVerdicts
from edge_runtime.pipeline import Judged
from edge_runtime.sinks import Sink
from edge_runtime.sinks.disk import rotate


class LineFile(Sink):
    """A file to which whole lines are appended; a line is in the file when `append` returns.

    A line that does not fit on the disk is removed as a whole and counted as lost. If somebody moves or deletes the
    file, the next line starts a new one.

    Args:
        path: `-` is standard output.
        begins: prefix of every such file; one that starts with anything else raises UsageError.
        header: first line of every file.
        rotate_at: size in bytes at which a new file is started; None never.
    """

    def __init__(
        self, path: Path | str, *, begins: str, header: str | None = None, rotate_at: int | None = None
    ) -> None:
        self._path, self._standard = Path(path), str(path) == "-"
        super().__init__("standard output" if self._standard else path)
        self._begins, self._header, self._rotate_at = begins.encode(), header, rotate_at
        self._header_is_due = False
        try:
            self._file = os.dup(1) if self._standard else self._open()
        except OSError as error:
            raise UsageError(f"{path}: can't be written ({error.strerror}); choose another place") from None
        self._begin()

    def _open(self) -> int:
        if self._path.is_file():
            with self._path.open("rb") as file:
                start = file.read(len(self._begins))
            cut_off = len(start) < len(self._begins) and self._begins.startswith(start)
            if start and (cut_off or not start.strip(b"\0")):
                # A power cut left half a line, or zeros where the first lines were.
                rotate(self._path)
            elif start and start != self._begins:
                raise UsageError(
                    f"{self._path}: holds something else, lines are not appended to it; choose another file"
                )
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def _begin(self) -> None:
        if not self._standard:
            with contextlib.suppress(OSError), self._path.open("rb") as file:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    # A crash cut off the last line: the next one must not continue it.
                    self._write("")
        self._header_is_due = self._header is not None and (self._standard or os.fstat(self._file).st_size == 0)
        self._write_header()

    def _write_header(self) -> str | None:
        """Write the header if it is due; return the reason if that fails. It stays due until then."""
        if self._header is None or not self._header_is_due:
            return None
        reason = self._write(self._header)
        self._header_is_due = reason is not None
        return reason

    def _renew(self) -> None:
        """Go on in a new file if this one is long enough, or is no longer in its place."""
        own = os.fstat(self._file)
        if not stat.S_ISREG(own.st_mode):
            return
        try:
            in_place = os.path.samestat(self._path.stat(), own)
        except FileNotFoundError:
            in_place = False
        if in_place and (self._rotate_at is None or own.st_size < self._rotate_at):
            return
        if in_place:
            rotate(self._path)
        fresh = self._open()
        os.close(self._file)
        self._file = fresh
        self._begin()

    def append(self, line: str) -> None:
        """Append `line`, which has no line end, or count it as lost."""
        if not self._standard:
            # If that fails, the line goes into the file as it is.
            with contextlib.suppress(OSError, UsageError):
                self._renew()
        reason = self._write_header() or self._write(line)
        if reason is None:
            self.losses.over()
        else:
            self.losses.add(reason)

    def _write(self, line: str) -> str | None:
        """Write `line`; return the reason if that fails."""
        data = line.encode("utf-8", "backslashreplace") + b"\n"
        done = 0
        try:
            while done < len(data):
                done += os.write(self._file, data[done:])
        except BrokenPipeError:
            raise
        except OSError as error:
            if done and not self._standard:
                # Leave no half line, if the disk still allows that.
                with contextlib.suppress(OSError):
                    os.ftruncate(self._file, max(0, os.fstat(self._file).st_size - done))
            return error.strerror or str(error)
        return None

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


class JsonlSink(LineFile):
    """One JSON object per frame and line, and a closing one for each video and each input of pictures."""

    def __init__(self, path: Path | str, *, rotate_at: int | None = None) -> None:
        super().__init__(path, begins='{"source":', rotate_at=rotate_at)

    def write(self, judged: Judged) -> None:
        """Write one frame."""
        self.append(judged.result.to_json())

    def conclude(self, files: FileVerdicts) -> None:
        """Write the verdicts on whole files."""
        for line in files.json_lines():
            self.append(line)


COLUMNS = (
    *("source", "frame", "time", "state", "track", "left", "top", "right", "bottom", "detection"),
    *("score", "verdict", "reason", "latency_ms", "age_ms", "dropped", "device", "precision", "model", "error"),
    *("notice", "provenance", "carried_s"),
)


class CsvSink(LineFile):
    """One line per face, and one for a frame without a face."""

    def __init__(self, path: Path | str, *, rotate_at: int | None = None) -> None:
        super().__init__(path, begins="source,frame,", header=",".join(COLUMNS), rotate_at=rotate_at)

    def write(self, judged: Judged) -> None:
        """Write the faces of one frame."""
        for face in judged.result.faces or (None,):
            values = judged.result.to_dict() | {"provenance": str(judged.result.provenance or "")}
            if face is not None:
                values |= face.to_dict() | {"detection": face.detection, "score": face.score}
                values |= zip(("left", "top", "right", "bottom"), face.box, strict=True)
            text = io.StringIO()
            csv.writer(text, lineterminator="").writerow(_cell(values.get(column)) for column in COLUMNS)
            self.append(text.getvalue())


def _cell(value: Any) -> Any:
    """Return a value as one line that no spreadsheet takes for a formula."""
    if not isinstance(value, str):
        return value
    text = " ".join(value.splitlines())
    # Some spreadsheets split cells at semicolons or tabs too.
    return re.sub(r"(^|[;\t])(?=\s*[=+@-].)", r"\1'", text)
