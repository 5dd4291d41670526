"""Reads the JSON lines of `edge-detect --jsonl --rotate` from where it stopped, through rotation and power cuts."""

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from edge_runtime.atomic import write_atomic
from edge_runtime.errors import SourceError, UsageError
from edge_runtime.sinks.disk import KEPT, numbered

log = logging.getLogger("edge_runtime")

LONGEST_LINE = 1 << 20
"""Bytes of a line beyond which it is left out."""


@dataclass(frozen=True)
class Position:
    """The place behind a line: a file, by its inode and the SHA-256 of its first line, and an offset in bytes."""

    inode: int
    first: str
    offset: int


@dataclass(frozen=True)
class Line:
    """A result.

    Attributes:
        id: 32 hexadecimal digits from its file, its place and its text, the same whenever it is read again.
        values: what the line says.
        end: the place behind it.
    """

    id: str
    values: dict[str, Any]
    end: Position


class Spool:
    """The file of results and its rotated ones, read in the order in which they were written.

    Args:
        path: the file that is being written; it need not exist yet.
        position: where to continue; None starts with the oldest file.

    Raises:
        UsageError: the path is a folder.
        SourceError: its folder can't be searched.
    """

    def __init__(self, path: Path, position: Position | None) -> None:
        self._path, self._position = path, position
        self._file: IO[bytes] | None = None
        self._told = ""
        try:
            is_folder = path.is_dir()
        except OSError as error:
            raise self._unreadable(error) from None
        if is_folder:
            raise UsageError(f"--spool {path}: is a folder; give the file that edge-detect --jsonl writes")

    def lines(self, most: int) -> Iterator[Line]:
        """Yield up to `most` lines that were not yielded yet, as far as they are whole.

        Raises:
            SourceError: a file can't be read.
        """
        try:
            if not self._file and not self._open():
                self._tell(f"{self._path}: no result yet; waiting for edge-detect --jsonl to write it")
                return
            while most > 0:
                if (line := self._next_line()) is not None:
                    if isinstance(line, Line):
                        most -= 1
                        yield line
                elif not self._move_on():
                    return
        except OSError as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: OSError) -> SourceError:
        return SourceError(f"{self._path}: can't be read ({error.strerror}); check its folder and user")

    def sync(self) -> None:
        """Write what was read through to the disk, so that a power cut can't take back what was already sent."""
        if self._file:
            # A file system that only reads.
            with contextlib.suppress(OSError):
                os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()
            self._file = None

    def _tell(self, what: str) -> None:
        """Log something, once while it lasts."""
        if what != self._told:
            self._told = what
            log.warning(what)

    def _next_line(self) -> Line | str | None:
        """Return the next line, "" for one that is not a result, None if there is no whole one."""
        assert self._file is not None
        assert self._position is not None
        raw, position = self._file.readline(LONGEST_LINE), self._position
        if not raw.endswith(b"\n"):
            if len(raw) < LONGEST_LINE:
                self._file.seek(position.offset)
                return None
            while (rest := self._file.readline(LONGEST_LINE)) and not rest.endswith(b"\n"):
                pass
        self._position = Position(position.inode, position.first, self._file.tell())
        try:
            values = json.loads(raw)
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict):
            # A power cut left it; the writer began a new line behind it.
            if raw.strip():
                self._tell(f"{self._path}: damaged lines are left out")
            return ""
        self._told = ""
        digest = hashlib.sha256(f"{position.first} {position.offset} ".encode() + raw)
        return Line(digest.hexdigest()[:32], values, self._position)

    def _open(self) -> bool:
        """Open the file of the position, or the oldest one; return whether there is one."""
        files, before = self._files(), self._position
        for path in files:
            if self._is_at(path, before) and self._start(path, before):
                return True
        for path in files:
            if self._start(path, None):
                if before:
                    log.warning(f"{self._path}: the file that was read last is gone; what it held may be lost")
                return True
        return False

    def _start(self, path: Path, position: Position | None) -> bool:
        """Open `path` at `position`, or at its beginning; return False if it has no whole line or is gone."""
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return False
        first = file.readline(LONGEST_LINE)
        if not first.endswith(b"\n") and len(first) < LONGEST_LINE:
            file.close()
            return False
        offset = position.offset if position else 0
        if offset > os.fstat(file.fileno()).st_size:
            log.warning(f"{path}: is shorter than what was sent of it; it is sent from its beginning")
            offset = 0
        file.seek(offset)
        self.sync()
        self.close()
        self._file = file
        self._position = Position(os.fstat(file.fileno()).st_ino, hashlib.sha256(first).hexdigest(), offset)
        return True

    def _move_on(self) -> bool:
        """Go to the file that was begun after this one, if there is one and this one is read to its end."""
        assert self._file is not None
        assert self._position is not None
        files = self._files()
        places = [place for place, path in enumerate(files) if self._is_at(path, self._position)]
        if places and files[places[-1]] == self._path:
            return False
        # It was rotated, so nothing is written to it any more: what it holds now is all.
        descriptor, offset = self._file.fileno(), self._position.offset
        if b"\n" in os.pread(descriptor, os.fstat(descriptor).st_size - offset, offset):
            return True
        if not places:
            self.close()
            return self._open()
        return any(self._start(path, None) for path in files[places[-1] + 1 :])

    def _files(self) -> list[Path]:
        """Return the files, oldest first, as they were at one moment: a rotation renames one after the other."""
        names = [*(numbered(self._path, number) for number in range(KEPT, 0, -1)), self._path]
        before: list[tuple[Path, int]] | None = None
        while True:
            now = []
            for path in names:
                with contextlib.suppress(FileNotFoundError):
                    now.append((path, path.stat().st_ino))
            if now == before and len({inode for _, inode in now}) == len(now):
                return [path for path, _ in now]
            before = now

    @staticmethod
    def _is_at(path: Path, position: Position | None) -> bool:
        """Return whether `path` is the file of `position`. An inode alone is used again, a first line has its time."""
        try:
            if position is None or path.stat().st_ino != position.inode:
                return False
            with path.open("rb") as file:
                return hashlib.sha256(file.readline(LONGEST_LINE)).hexdigest() == position.first
        except FileNotFoundError:
            return False


def read_position(path: Path) -> Position | None:
    """Return the position stored in a file, or None if the file does not exist.

    Raises:
        UsageError: it holds something else, or can't be read.
    """
    try:
        values = json.loads(path.read_bytes())
        position = Position(int(values["inode"]), str(values["first"]), int(values["offset"]))
        if position.offset < 0:
            raise ValueError(f"offset {position.offset}")
        return position
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: can't be read ({error}); remove it to send everything again") from None


def write_position(path: Path, position: Position) -> None:
    """Write a position; a power cut leaves it or the one before.

    Raises:
        OSError: it can't be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(asdict(position)))
