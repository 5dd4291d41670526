"""Pictures on disk: single ones, globs, and folders, which may be watched for new ones."""

import functools
import glob
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from edge_runtime.errors import SourceError
from edge_runtime.judging.results import SourceState
from edge_runtime.pixels.file_types import SUFFIXES
from edge_runtime.pixels.pictures import read_picture
from edge_runtime.sources import Frame, Gap, Source

VIDEO_SUFFIXES = frozenset(
    {".avi", ".mp4", ".m4v", ".mkv", ".mov", ".webm", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".3gp", ".mjpeg", ".mjpg"}
)
"""Of the files that a pattern matches these are videos; one that is named by itself may have any name."""

POLL_S = 0.25
"""How often a watched folder is looked at, at most."""

PAUSE_PER_LOOK = 10
"""How often what a look took is waited before the next: looking at very many files is not to keep a core busy."""

SETTLED_S = 1.0
"""A file in a watched folder that has not changed for so long is complete."""


class Pictures(Source):
    """Pictures by their paths, each a frame of its own."""

    still = True

    def __init__(self, paths: Iterable[Path]) -> None:
        self.paths = tuple(paths)
        self.name = str(self.paths[0]) if len(self.paths) == 1 else f"{len(self.paths)} pictures"

    def frames(self, stop: threading.Event) -> Iterator[Frame | Gap]:
        """Yield every picture, in the order given."""
        return (picture_frame(path) for path in self.paths)

    def prove(self) -> None:
        """Look whether a picture is there; raises SourceError where none is."""
        if not any(path.exists() for path in self.paths):
            raise SourceError(f"{self.paths[0]}: not found; give a picture, folder, video, address or camera")


class Glob(Source):
    """The pictures and videos that a pattern names, `**` reaching into folders, one by one in order of their names."""

    def __init__(self, pattern: str) -> None:
        # Not Path.glob, which takes no pattern that begins at the root.
        found = sorted(glob.glob(str(Path(pattern).expanduser()), recursive=True))  # noqa: PTH207
        self.paths = [path for path in map(Path, found) if path.suffix.lower() in SUFFIXES | VIDEO_SUFFIXES]
        self.name, self.still = pattern, all(path.suffix.lower() in SUFFIXES for path in self.paths)
        if not self.paths:
            raise SourceError(
                f"{pattern}: no picture or video matches; put quotes around the pattern and check the folder"
            )

    def frames(self, stop: threading.Event) -> Iterator[Frame | Gap]:
        """Yield every picture, and every frame of every video; a video that can't be read is told of."""
        for path in self.paths:
            if stop.is_set():
                return
            yield from [picture_frame(path)] if path.suffix.lower() in SUFFIXES else _video_frames(path, stop)


def _video_frames(path: Path, stop: threading.Event) -> Iterator[Frame | Gap]:
    from edge_runtime.sources.video import Video

    try:
        yield from Video(path).frames(stop)
    except SourceError as error:
        yield Gap(str(path), SourceState.ENDED, str(error), failed=True)


class Folder(Source):
    """All pictures below a folder, in the order of their names; `watch` goes on with those that come later."""

    still = True

    def __init__(self, path: Path, *, watch: bool = False) -> None:
        self.path, self.endless, self.name = path, watch, str(path)
        if not watch and next(pictures_below(path), None) is None:
            raise SourceError(f"{path}: no pictures in it (looked for {', '.join(sorted(SUFFIXES))})")

    def frames(self, stop: threading.Event) -> Iterator[Frame | Gap]:
        """Yield every picture once; those that are being written while watching, once they are complete."""
        if not self.endless:
            yield from (picture_frame(path) for path in pictures_below(self.path))
            return
        yield from self._watched(stop)

    def _watched(self, stop: threading.Event) -> Iterator[Frame]:
        seen: dict[Path, Growing] = {}
        while not stop.is_set():
            now = monotonic()
            # A folder without any may be a disk that was taken out: the same pictures come back with it.
            seen = _looked_at(self.path, seen, now) or seen
            took_s = monotonic() - now
            for path, file in seen.items():
                if not file.told and now - file.since >= SETTLED_S:
                    file.told = True
                    yield picture_frame(path)
            stop.wait(max(POLL_S, PAUSE_PER_LOOK * took_s))


@dataclass
class Growing:
    """A file in a watched folder: size and time of change, since when they are so, whether it was given out."""

    state: tuple[int, int]
    since: float
    told: bool = False


def _looked_at(folder: Path, seen: dict[Path, Growing], now: float) -> dict[Path, Growing]:
    """Return the pictures below `folder` as they are `now`, those that are as they were in `seen` with their past."""
    found = {}
    for path in pictures_below(folder):
        before = seen.get(path)
        try:
            state = _state(path)
        except OSError:
            # Gone since its folder was read, perhaps with the whole folder.
            if before is not None:
                found[path] = before
            continue
        if state is not None:
            found[path] = _grown(before, state, now)
    return found


def _grown(before: Growing | None, state: tuple[int, int], now: float) -> Growing:
    return before if before is not None and before.state == state else Growing(state, now)


def _state(path: Path) -> tuple[int, int] | None:
    """Return size and time of change of a file that has content, else None."""
    found = path.stat()
    return (found.st_size, found.st_mtime_ns) if found.st_size else None


def picture_frame(path: Path) -> Frame:
    """Return a picture as a frame that is read when it is asked for."""
    return Frame(str(path), 0, functools.partial(read_picture, path), still=True)


def pictures_below(folder: Path) -> Iterator[Path]:
    """Yield the pictures in `folder` and below, sorted by name within each folder; hidden ones are left out."""
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
