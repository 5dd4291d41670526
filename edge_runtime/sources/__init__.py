"""Where frames come from: pictures, folders, videos, streams and cameras, all read in the same way.

A source is a name and a generator of frames. To add one: write a class that satisfies `Source` in a module of its own,
and give it a line in `open_source`.
"""

import glob
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from time import monotonic
from typing import Protocol

from PIL import Image

from edge_runtime.errors import SourceError
from edge_runtime.judging.results import SourceState
from edge_runtime.pixels.file_types import SUFFIXES


@dataclass(frozen=True)
class Frame:
    """One frame, not decoded yet where that can wait.

    Attributes:
        source: the name that results carry.
        index: counts from 0 by source, frames that were dropped too.
        load: returns the picture, RGB; raises PictureError for one that can't be decoded.
        still: the frame stands for itself (a picture), so nothing is tracked from one to the next.
        time: when it was taken or read, UTC.
        taken: the same on the monotonic clock, in seconds.
        dropped: frames of this source that were skipped so far.
        fps: the rate at which the source says its frames follow each other; None where they come when they come.
    """

    source: str
    index: int
    load: Callable[[], Image.Image]
    still: bool = False
    time: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    taken: float = field(default_factory=monotonic)
    dropped: int = 0
    fps: float | None = None


@dataclass(frozen=True)
class Gap:
    """A source gives no frames for now (`lost`) or no more (`ended`), and why; `failed` where that is a failure."""

    source: str
    state: SourceState
    error: str | None = None
    failed: bool = False
    time: datetime = field(default_factory=lambda: datetime.now(timezone.utc))


class Source(Protocol):
    """What the pipeline reads; inherit from it for the defaults.

    Attributes:
        name: what results call it.
        live: frames arrive in real time and only the newest one counts; otherwise every frame is judged, in order.
        still: its frames are independent pictures, so nothing is tracked from one to the next.
        endless: it ends only when it is told to stop.
    """

    name: str
    live: bool = False
    still: bool = False
    endless: bool = False

    def prove(self) -> None:
        """Check that the source can be read now, as far as that is quick; by default nothing is checked.

        Raises:
            SourceError: it can't.
        """
        return

    def frames(self, stop: threading.Event) -> Iterator[Frame | Gap]:
        """Yield frames until the source ends or `stop` is set. A `Gap` says that it was lost or has failed."""


@dataclass(frozen=True)
class SourceOptions:
    """How sources are opened.

    Attributes:
        width, height, fps: asked of a camera; None leaves its own.
        mjpg: ask a camera for MJPG, which most deliver faster than raw frames.
        watch: a folder is watched for new pictures until the end.
        stall_timeout_s: a live source that gives no frame for so long is lost.
        give_up_after_s: a live source that stays lost for so long has failed; None tries for ever.
    """

    width: int | None = None
    height: int | None = None
    fps: float | None = None
    mjpg: bool = True
    watch: bool = False
    stall_timeout_s: float = 5.0
    give_up_after_s: float | None = None


DEFAULT_OPTIONS = SourceOptions()


def open_source(text: str, options: SourceOptions = DEFAULT_OPTIONS) -> Source:
    """Return the source that `text` names: a path, a glob, `-`, an address, or a camera's device file.

    Raises:
        SourceError: nothing is there, or it can't be read at all.
    """
    if text == "-":
        from edge_runtime.sources.mjpeg import StandardInput

        return StandardInput()
    if "://" in text:
        from edge_runtime.sources.streams import stream_source

        return stream_source(text, options)
    if text.startswith("/dev/"):
        from edge_runtime.sources.camera import camera_source

        return camera_source(text, options)
    try:
        return _open_path(text, options)
    except OSError as error:
        raise SourceError(f"{text}: can't be opened ({error.strerror or error})") from None


def open_camera(name: str | int, options: SourceOptions = DEFAULT_OPTIONS) -> Source:
    """Return the camera of that number or device file, after it has given a frame.

    Raises:
        SourceError: it is not there or gives no frame; the message lists the cameras that exist.
    """
    from edge_runtime.sources.camera import camera_source

    source: Source = camera_source(name, options)
    source.prove()
    return source


def _open_path(text: str, options: SourceOptions) -> Source:
    from edge_runtime.sources import files

    path = Path(text).expanduser()
    if path.is_dir():
        return files.Folder(path, watch=options.watch)
    if not path.exists() and not path.is_symlink() and glob.has_magic(text):
        return files.Glob(text)
    if path.suffix.lower() in SUFFIXES:
        return files.Pictures([path])
    if not path.exists():
        raise SourceError(f"{text}: not found; give a picture, folder, video, address or camera")
    if not path.is_file():
        raise SourceError(f"{text}: no regular file; use - for standard input")
    from edge_runtime.sources.video import Video, looks_like_video

    return Video(path) if looks_like_video(path) else files.Pictures([path])


def open_sources(
    texts: Iterable[str], options: SourceOptions = DEFAULT_OPTIONS, *, cameras: Iterable[str | int] = ()
) -> list[Source]:
    """Open each of `texts`, and `cameras` by number or device file.

    As long as one of them can be read, those that can't be become sources that fail, or that are waited for where
    they are live. Pictures that are named one after the other become one source.

    Raises:
        SourceError: none of them can be read.
    """
    names = [*texts, *(f"/dev/video{camera}" if str(camera).isdigit() else str(camera) for camera in cameras)]
    # Named twice, a source would be read twice under one name.
    tried = [_tried(name, options) for name in dict.fromkeys(names)]
    errors = [error for _, error in tried if error is not None]
    if errors and len(errors) == len(tried):
        raise errors[0]
    return _joined([source for source, _ in tried])


def _tried(name: str, options: SourceOptions) -> tuple[Source, SourceError | None]:
    """Return the source and, where it can't be read now, why."""
    try:
        source = open_source(name, options)
    except SourceError as error:
        return Failed(name, str(error)), error
    try:
        source.prove()
    except SourceError as error:
        return source, error
    return source, None


class Failed(Source):
    """A source that could not be opened. It yields only the reason."""

    still = True

    def __init__(self, name: str, error: str) -> None:
        self.name, self._error = name, error

    def prove(self) -> None:
        """Raise the reason."""
        raise SourceError(self._error)

    def frames(self, stop: threading.Event) -> Iterator[Frame | Gap]:
        """Yield the reason."""
        yield Gap(self.name, SourceState.ENDED, error=self._error, failed=True)


def _joined(sources: Iterable[Source]) -> list[Source]:
    from edge_runtime.sources.files import Pictures

    joined: list[Source] = []
    for source in sources:
        if joined and type(source) is type(joined[-1]) is Pictures:
            joined[-1] = Pictures([*joined[-1].paths, *source.paths])
        else:
            joined.append(source)
    return joined
