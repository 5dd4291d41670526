"""Pictures on disk: single files, globs, and folders, which can be watched for new pictures."""

import errno
import functools
import glob
import heapq
import logging
import os
import tempfile
import threading
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from stat import S_ISDIR
from time import monotonic
from typing import IO

from edge_runtime.errors import SourceError
from edge_runtime.pixels.file_types import SUFFIXES, Content, file_type
from edge_runtime.pixels.pictures import read_picture
from edge_runtime.pixels.provenance import picture_provenance
from edge_runtime.sources import EXPECTED, Frame, Gap, Source

log = logging.getLogger("edge_runtime")

VIDEO_SUFFIXES = frozenset(
    {".avi", ".mp4", ".m4v", ".mkv", ".mov", ".webm", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".3gp", ".mjpeg", ".mjpg"}
)
"""A pattern takes files with these suffixes as videos; a file that is named by itself may have any suffix."""

NAMES_AT_ONCE = 50_000
"""Names of one folder that are sorted in memory."""

RUNS_AT_ONCE = 100
"""Sorted files that are merged into one, since a process may not open many more."""

POLL_S = 0.25
"""Shortest time between two scans of a watched folder."""

PAUSE_PER_SCAN = 10
"""The pause after a scan, in multiples of its duration, so that a very large folder does not keep a core busy."""

SETTLED_S = 1.0
"""A file in a watched folder is complete once it has not changed for this long."""


def open_file(path: Path) -> Source:
    """Return a file as pictures or as a video, by suffix or content; raises SourceError if it is missing or neither."""
    if path.suffix.lower() in SUFFIXES:
        return Pictures([path])
    if not path.exists():
        raise SourceError(f"{path}: not found; {EXPECTED}")
    if not path.is_file():
        raise SourceError(f"{path}: not a regular file; use - for standard input")
    content = file_type(path).content
    if content is Content.AUDIO:
        raise SourceError(f"{path}: sound without pictures; {EXPECTED}")
    # A file of JPEGs one after the other begins like a single one.
    if content is not Content.OTHER and path.suffix.lower() not in (".mjpeg", ".mjpg"):
        return Pictures([path])
    from edge_runtime.sources.video import Video

    return Video(path)


def picture_frame(path: Path) -> Frame:
    """Return a picture as a frame that is read when it is needed."""
    says = functools.partial(picture_provenance, path)
    return Frame(str(path), 0, functools.partial(read_picture, path), still=True, provenance=says)


class Pictures(Source):
    """Pictures by their paths, each its own frame."""

    still = True

    def __init__(self, paths: Iterable[Path]) -> None:
        self.paths = tuple(paths)
        self.name = str(self.paths[0]) if len(self.paths) == 1 else f"{len(self.paths)} pictures"

    def prove(self) -> None:
        """Raise SourceError if none of the pictures exists."""
        if not any(path.exists() for path in self.paths):
            raise SourceError(f"{self.paths[0]}: not found; {EXPECTED}")

    def files(self) -> Iterable[Path]:
        """Return the pictures."""
        return self.paths

    def frames(self, stop: threading.Event) -> Iterator[Frame | Gap]:
        """Yield every picture, in the given order."""
        return map(picture_frame, self.paths)


class Glob(Source):
    """The pictures and videos that match a pattern, in the order of their names; `**` includes subfolders."""

    def __init__(self, pattern: str) -> None:
        # Path.glob takes no absolute pattern.
        found = sorted(glob.glob(str(Path(pattern).expanduser()), recursive=True))  # noqa: PTH207
        self.paths = [path for path in map(Path, found) if path.suffix.lower() in SUFFIXES | VIDEO_SUFFIXES]
        self.name, self.still = pattern, all(path.suffix.lower() in SUFFIXES for path in self.paths)
        if not self.paths:
            advice = "put quotes around the pattern and check the folder"
            raise SourceError(f"{pattern}: no picture or video matches; {advice}")

    def files(self) -> Iterable[Path]:
        """Return the files that match."""
        return self.paths

    def frames(self, stop: threading.Event) -> Iterator[Frame | Gap]:
        """Yield every picture and every frame of every video; a file that can't be read yields a gap."""
        for path in self.paths:
            if stop.is_set():
                return
            try:
                yield from open_file(path).frames(stop)
            except (SourceError, OSError) as error:
                yield Gap.failure(str(path), error)


class Folder(Source):
    """All pictures in a folder and its subfolders, in the order of their names; `watch` waits for new ones."""

    still = True

    def __init__(self, path: Path, *, watch: bool = False) -> None:
        self.path, self.endless, self.name = path, watch, str(path)
        if not watch and not any(isinstance(found, Path) for found in pictures_below(path)):
            failures = (found.error for found in pictures_below(path) if isinstance(found, Gap))
            looked_for = f"{path}: no pictures in it (looked for {', '.join(sorted(SUFFIXES))})"
            raise SourceError(next(failures, None) or looked_for)

    def files(self) -> Iterable[Path]:
        """Return the folder and the pictures that are in it now."""
        return chain([self.path], (found for found in pictures_below(self.path) if isinstance(found, Path)))

    def frames(self, stop: threading.Event) -> Iterator[Frame | Gap]:
        """Yield every picture once, and again when it changes under watch; an unreadable subfolder yields a gap."""
        if self.endless:
            yield from self._watched(stop)
            return
        skipped: Counter[str] = Counter()
        for found in pictures_below(self.path, skipped):
            yield found if isinstance(found, Gap) else picture_frame(found)
        if skipped:
            kinds = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in skipped.most_common(5))
            log.info(f"{self.path}: skipped {skipped.total()} that are not pictures ({kinds})")

    def _watched(self, stop: threading.Event) -> Iterator[Frame | Gap]:
        seen: dict[Path, _File] = {}
        failed: set[str] = set()
        while not stop.is_set():
            now, found, gaps = monotonic(), {}, []
            for item in pictures_below(self.path):
                if isinstance(item, Gap):
                    gaps.append(item)
                    continue
                before = seen.get(item)
                try:
                    state = (item.stat().st_size, item.stat().st_mtime_ns)
                except OSError:
                    # It vanished after its folder was listed, perhaps with the whole folder.
                    state = before.state if before else (0, 0)
                if state[0]:
                    found[item] = before if before and before.state == state else _File(state, now)
            # A folder that is empty all at once may be a disk that was removed; its pictures come back with it.
            seen = found or seen
            took_s = monotonic() - now
            yield from (gap for gap in gaps if gap.source not in failed)
            failed.update(gap.source for gap in gaps)
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


def pictures_below(
    folder: Path, skipped: Counter[str] | None = None, *, suffixes: Collection[str] = SUFFIXES
) -> Iterator[Path | Gap]:
    """Yield the pictures in `folder` and its subfolders, sorted by name within each folder, without hidden ones.

    Links are followed, but no folder is entered twice. An unreadable folder is yielded as a gap. `skipped` counts the
    other files by suffix; `suffixes` are those of pictures.
    """
    entered: set[tuple[int, int]] = set()
    # Not recursive: folders may be nested deeper than Python's stack.
    pending: list[Iterator[Path]] = [iter([folder])]
    while pending:
        path = next(pending[-1], None)
        if path is None:
            pending.pop()
            continue
        try:
            found = path.stat()
            if S_ISDIR(found.st_mode):
                if (found.st_dev, found.st_ino) not in entered:
                    entered.add((found.st_dev, found.st_ino))
                    pending.append(map(path.joinpath, sorted_names(path)))
                continue
        except OSError as error:
            # A broken link may still be named as a picture; reading it says what is wrong.
            if error.errno not in (errno.ENOENT, errno.ELOOP):
                yield Gap.failure(str(path), f"{path}: can't be read ({error.strerror})")
                continue
        if path.suffix.lower() in suffixes:
            yield path
        elif skipped is not None:
            skipped[path.suffix.lower()] += 1


def sorted_names(folder: Path, at_once: int = NAMES_AT_ONCE) -> Iterator[str]:
    """Return the names in `folder`, sorted, without hidden ones, in memory that does not grow with their number.

    Beyond `at_once` they go through temporary files, sorted in runs that are then merged.

    Raises:
        OSError: the folder can't be read.
    """
    runs: list[IO[str]] = []
    merged: list[IO[str]] = []
    names: list[str] = []
    with os.scandir(folder) as found:
        for entry in found:
            if entry.name.startswith("."):
                continue
            names.append(entry.name)
            if len(names) >= at_once:
                runs.append(_written(sorted(names)))
                names = []
            if len(runs) >= RUNS_AT_ONCE:
                merged.append(_written(heapq.merge(*map(_split_at_zeros, runs))))
                runs = []
    return heapq.merge(sorted(names), *map(_split_at_zeros, merged + runs)) if merged + runs else iter(sorted(names))


def _written(names: Iterable[str]) -> IO[str]:
    """Write names to a file that is closed with the iterator over it. No name holds a zero byte."""
    run = tempfile.TemporaryFile("w+", encoding="utf-8", errors="surrogateescape", newline="")  # noqa: SIM115
    run.writelines(f"{name}\0" for name in names)
    run.seek(0)
    return run


def _split_at_zeros(file: IO[str]) -> Iterator[str]:
    rest = ""
    while block := file.read(1 << 16):
        *names, rest = (rest + block).split("\0")
        yield from names
