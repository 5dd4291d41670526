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
from edge_runtime.pictures import SUFFIXES


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
    """

    source: str
    index: int
    load: Callable[[], Image.Image]
    still: bool = False
    time: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    taken: float = field(default_factory=monotonic)
    dropped: int = 0


@dataclass(frozen=True)
class Gap:
    """A source gives no frames for now (`lost`) or no more (`ended`), and why; `failed` where that is a failure."""

    source: str
    state: str
    error: str | None = None
    failed: bool = False
    time: datetime = field(default_factory=lambda: datetime.now(timezone.utc))


class Source(Protocol):
    """What the pipeline reads.

    Attributes:
        name: what results call it.
        live: frames come when they come, and only the newest counts; else every frame is judged, in order.
        still: its frames are pictures that stand for themselves.
    """

    name: str
    live: bool
    still: bool

    def frames(self, stop: threading.Event) -> Iterator[Frame | Gap]:
        """Yield frames until the source ends or `stop` is set; gaps tell of what went wrong."""


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
    if text.startswith(("http://", "https://", "rtsp://", "rtsps://")):
        from edge_runtime.sources.streams import open_stream

        return open_stream(text, options)
    if text.startswith("/dev/video"):
        return open_camera(text, options)
    return _open_path(text, options)


def open_camera(name: str | int, options: SourceOptions = DEFAULT_OPTIONS) -> Source:
    """Return the camera of that number or device file.

    Raises:
        SourceError: there is no such camera, or it gives no frame; the message lists those that exist.
    """
    from edge_runtime.sources.camera import camera_source

    return camera_source(name, options)


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


def open_sources(texts: Iterable[str], options: SourceOptions = DEFAULT_OPTIONS) -> list[Source]:
    """Open each of `texts`; pictures that are named one after the other become one source."""
    from edge_runtime.sources.files import Pictures

    sources: list[Source] = []
    for text in texts:
        source = open_source(text, options)
        if sources and isinstance(source, Pictures) and isinstance(sources[-1], Pictures):
            sources[-1] = Pictures([*sources[-1].paths, *source.paths])
        else:
            sources.append(source)
    return sources
