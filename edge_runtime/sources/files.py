"""Pictures on disk: single files, globs, and folders, which can be watched for new pictures."""

import functools
import glob
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from edge_runtime.errors import SourceError
from edge_runtime.pixels.file_types import SUFFIXES
from edge_runtime.pixels.pictures import read_picture
from edge_runtime.sources import EXPECTED, Frame, Gap, Source

VIDEO_SUFFIXES = frozenset(
    {".avi", ".mp4", ".m4v", ".mkv", ".mov", ".webm", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".3gp", ".mjpeg", ".mjpg"}
)
"""The files that a pattern matches as videos; a file that is named by itself may have any suffix."""

POLL_S = 0.25
"""Shortest time between two scans of a watched folder."""

PAUSE_PER_SCAN = 10
"""The pause after a scan, in multiples of its duration, so that a very large folder does not keep a core busy."""

SETTLED_S = 1.0
"""A file in a watched folder is complete once it has not changed for this long."""


def picture_frame(path: Path) -> Frame:
    """Return a picture as a frame that is read when it is needed."""
    return Frame(str(path), 0, functools.partial(read_picture, path), still=True)


class Pictures(Source):
    """Pictures by their paths, each a frame of its own."""

    still = True

    def __init__(self, paths: Iterable[Path]) -> None:
        self.paths = tuple(paths)
        self.name = str(self.paths[0]) if len(self.paths) == 1 else f"{len(self.paths)} pictures"

    def prove(self) -> None:
        """Raise SourceError if none of the pictures exists."""
        if not any(path.exists() for path in self.paths):
            raise SourceError(f"{self.paths[0]}: not found; {EXPECTED}")

    def frames(self, stop: threading.Event) -> Iterator[Frame | Gap]:
        """Yield every picture, in the given order."""
        return map(picture_frame, self.paths)


class Glob(Source):
    """The pictures and videos that match a pattern, in the order of their names; `**` includes subfolders."""

    def __init__(self, pattern: str) -> None:
        # Not Path.glob, which takes no absolute pattern.
        found = sorted(glob.glob(str(Path(pattern).expanduser()), recursive=True))  # noqa: PTH207
        self.paths = [path for path in map(Path, found) if path.suffix.lower() in SUFFIXES | VIDEO_SUFFIXES]
        self.name, self.still = pattern, all(path.suffix.lower() in SUFFIXES for path in self.paths)
        if not self.paths:
            raise SourceError(
                f"{pattern}: no picture or video matches; put quotes around the pattern and check the folder"
            )

    def frames(self, stop: threading.Event) -> Iterator[Frame | Gap]:
        """Yield every picture and every frame of every video; a video that can't be read yields a gap."""
        from edge_runtime.sources.video import Video

        for path in self.paths:
            if stop.is_set():
                return
            if path.suffix.lower() in SUFFIXES:
                yield picture_frame(path)
                continue
            try:
                yield from Video(path).frames(stop)
            except SourceError as error:
                yield Gap.failure(str(path), error)


class Folder(Source):
    """All pictures in a folder and its subfolders, in the order of their names; `watch` waits for new ones."""

    still = True

    def __init__(self, path: Path, *, watch: bool = False) -> None:
        self.path, self.endless, self.name = path, watch, str(path)
        if not watch and next(pictures_below(path), None) is None:
            raise SourceError(f"{path}: no pictures in it (looked for {', '.join(sorted(SUFFIXES))})")

    def frames(self, stop: threading.Event) -> Iterator[Frame | Gap]:
        """Yield every picture once; while watching, a new or changed one once it is complete."""
        if self.endless:
            yield from self._watched(stop)
        else:
            yield from map(picture_frame, pictures_below(self.path))

    def _watched(self, stop: threading.Event) -> Iterator[Frame]:
        seen: dict[Path, _File] = {}
        while not stop.is_set():
            now = monotonic()
            # A folder that is empty all at once may be a disk that was removed; its pictures come back with it.
            seen = _scan(self.path, seen, now) or seen
            took_s = monotonic() - now
            for path, file in seen.items():
                if not file.yielded and now - file.since >= SETTLED_S:
                    file.yielded = True
                    yield picture_frame(path)
            stop.wait(max(POLL_S, PAUSE_PER_SCAN * took_s))


@dataclass
class _File:
    """A file in a watched folder: its size and modification time, since when it has these, whether it was yielded."""

    state: tuple[int, int]
    since: float
    yielded: bool = False


def _scan(folder: Path, seen: dict[Path, _File], now: float) -> dict[Path, _File]:
    """Return the non-empty pictures below `folder`; those that are unchanged keep their entry in `seen`."""
    found = {}
    for path in pictures_below(folder):
        before = seen.get(path)
        try:
            stat = path.stat()
        except OSError:
            # It vanished after its folder was listed, perhaps with the whole folder.
            if before is not None:
                found[path] = before
            continue
        state = (stat.st_size, stat.st_mtime_ns)
        if stat.st_size:
            found[path] = before if before is not None and before.state == state else _File(state, now)
    return found


def pictures_below(folder: Path) -> Iterator[Path]:
    """Yield the pictures in `folder` and its subfolders, sorted by name within each folder, without hidden ones."""
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir() and not entry.is_symlink():
            yield from pictures_below(entry)
        elif entry.suffix.lower() in SUFFIXES:
            yield entry
