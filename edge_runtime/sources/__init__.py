"""Where frames come from: pictures, folders, videos, streams and cameras, all with one interface.

A source has a name and a generator of frames. To add one: inherit from `Source` in a new module, and add a line to
`open_source`.
"""

import glob
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from time import monotonic
from typing import Protocol

from PIL import Image

from edge_runtime.defaults import STALL_TIMEOUT_S
from edge_runtime.errors import SourceError
from edge_runtime.judging.results import SourceState
from edge_runtime.pixels.provenance import Provenance
from edge_runtime.sources.address import is_bare_login, public_name

EXPECTED = "give a picture, folder, video, address or camera"


@dataclass(frozen=True)
class Frame:
    """One frame, decoded only when its picture is needed.

    Attributes:
        source: the name in the results.
        index: counts from 0 within the source and includes dropped frames.
        load: returns the picture as RGB; raises PictureError if it can't be decoded.
        still: the frame is an independent picture, so nothing is tracked from one to the next.
        time, taken: when it was taken or read, in UTC and in seconds of the monotonic clock.
        dropped: frames of this source that were skipped so far.
        live: its source is live; set by the pipeline, like `turn` and `gaps`.
        turn, gaps: how many frames of this source were taken for judging before, and how often it was lost.
        fps, position_s: a video's rate, nominal or on average, and the frame's time in it; None in real time.
        provenance: returns what its file says about its origin; None for a camera.
    """

    source: str
    index: int
    load: Callable[[], Image.Image]
    still: bool = False
    time: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    taken: float = field(default_factory=monotonic)
    dropped: int = 0
    live: bool = False
    turn: int = 0
    gaps: int = 0
    fps: float | None = None
    position_s: float | None = None
    provenance: Callable[[], Provenance] | None = None


@dataclass(frozen=True)
class Gap:
    """A source gives no frames for now (`LOST`) or no more (`ENDED`); `failed` if that counts as a failed input."""

    source: str
    state: SourceState
    error: str | None = None
    failed: bool = False
    time: datetime = field(default_factory=lambda: datetime.now(timezone.utc))

    @classmethod
    def failure(cls, source: str, error: object) -> "Gap":
        """Return the gap for a source, or one of its files, that can't be read."""
        return cls(source, SourceState.ENDED, error=str(error), failed=True)


class Source(Protocol):
    """What the pipeline reads; inherit from it for the defaults.

    Attributes:
        name: its name in the results.
        live: frames arrive in real time and only the newest one counts; otherwise every frame is judged, in order.
        still: its frames are independent pictures.
        endless: it ends only when stopped.
    """

    name: str
    live: bool = False
    still: bool = False
    endless: bool = False

    def prove(self) -> None:
        """Raise SourceError if the source can't be read now; by default nothing is checked."""
        return

    def files(self) -> Iterable[Path]:
        """Return the files it reads, and the folders whose future files it reads too."""
        return ()

    def frames(self, stop: threading.Event) -> Iterator[Frame | Gap]:
        """Yield frames until the source ends or `stop` is set. A `Gap` says that it was lost or has failed."""


@dataclass(frozen=True)
class SourceOptions:
    """How sources are opened.

    Attributes:
        width, height, fps, mjpg: requested from a camera; None keeps its own. Most deliver MJPG faster than raw frames.
        watch: keep watching a folder for new pictures.
        stall_timeout_s: a live source without a frame for this long is lost.
        give_up_after_s: a live source that stays lost for this long has failed; None keeps trying.
    """

    width: int | None = None
    height: int | None = None
    fps: float | None = None
    mjpg: bool = True
    watch: bool = False
    stall_timeout_s: float = STALL_TIMEOUT_S
    give_up_after_s: float | None = None


DEFAULT_OPTIONS = SourceOptions()


def open_source(text: str, options: SourceOptions = DEFAULT_OPTIONS) -> Source:
    """Return the source that `text` names: a path, a glob, `-`, an address, or a camera's device file.

    Raises:
        SourceError: nothing is there, or it can't be read at all.
    """
    if not text:
        raise SourceError(f"an input's name is empty; {EXPECTED}")
    if text == "-":
        from edge_runtime.sources.mjpeg import StandardInput

        return StandardInput()
    if "://" in text:
        from edge_runtime.sources.streams import stream_source

        return stream_source(text, options)
    if text.startswith("/dev/") and not text.startswith("/dev/shm/"):
        from edge_runtime.sources.camera import camera_source

        return camera_source(text, options)
    from edge_runtime.sources.files import Folder, Glob, open_file

    try:
        path = Path(text).expanduser()
        if path.is_dir():
            return Folder(path, watch=options.watch)
        if not path.exists() and not path.is_symlink():
            # Path.glob takes no absolute pattern.
            if is_bare_login(text) and not glob.glob(text):  # noqa: PTH207
                raise SourceError(f"{public_name(text)}: not found; an address begins with http:// or rtsp://")
            if glob.has_magic(text):
                return Glob(text)
        return open_file(path)
    # RuntimeError: the user in ~USER does not exist.
    except (OSError, RuntimeError) as error:
        raise SourceError(
            f"{public_name(text)}: can't be opened ({getattr(error, 'strerror', None) or error})"
        ) from None


def open_camera(name: str | int, options: SourceOptions = DEFAULT_OPTIONS) -> Source:
    """Return the camera with that number or device file; raises SourceError unless it gives a frame."""
    from edge_runtime.sources.camera import camera_source

    source: Source = camera_source(name, options)
    source.prove()
    return source


def open_sources(
    texts: Iterable[str], options: SourceOptions = DEFAULT_OPTIONS, *, cameras: Iterable[str | int] = ()
) -> list[Source]:
    """Open each of `texts`, and `cameras` by number or device file; raises SourceError if none can be read.

    The others become sources that report their failure, or live sources that keep trying. A name that is given twice is
    opened once. Pictures named one after the other become one source.
    """
    from edge_runtime.sources.files import Pictures

    names = [*texts, *(f"/dev/video{camera}" if str(camera).isdigit() else str(camera) for camera in cameras)]
    sources: list[Source] = []
    for name in dict.fromkeys(names):
        try:
            source = open_source(name, options)
        except SourceError as error:
            source = Failed(public_name(name), error)
        if sources and type(source) is type(sources[-1]) is Pictures:
            sources[-1] = Pictures([*sources[-1].paths, *source.paths])
        else:
            sources.append(source)
    _prove_any(sources)
    return sources


def _prove_any(sources: list[Source]) -> None:
    """Return as soon as one source can be read, without waiting for slow cameras; else raise the first one's reason."""
    outcomes: queue.SimpleQueue[tuple[int, SourceError | None]] = queue.SimpleQueue()

    def prove(number: int, source: Source) -> None:
        try:
            source.prove()
            outcomes.put((number, None))
        except SourceError as error:
            outcomes.put((number, error))
        # Without an outcome, we would wait forever.
        except Exception as error:
            outcomes.put((number, SourceError(f"{source.name}: {type(error).__name__} ({error})")))

    for number, source in enumerate(sources):
        threading.Thread(target=prove, args=(number, source), name=f"start of {source.name}", daemon=True).start()
    errors = {}
    for _ in sources:
        number, error = outcomes.get()
        if error is None:
            return
        errors[number] = error
    if errors:
        raise errors[0]


class Failed(Source):
    """A source that could not be opened; it yields only the reason."""

    still = True

    def __init__(self, name: str, error: SourceError) -> None:
        self.name, self._error = name, error

    def prove(self) -> None:
        """Raise the reason."""
        raise self._error

    def frames(self, stop: threading.Event) -> Iterator[Frame | Gap]:
        """Yield the reason."""
        yield Gap.failure(self.name, self._error)
