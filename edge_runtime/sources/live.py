"""Live sources: read by their own thread, reopened for ever when they go away, a hanging read noticed."""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from edge_runtime.errors import SourceError
from edge_runtime.judging.results import SourceState
from edge_runtime.sources import Frame, Gap, Source, SourceOptions

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 4.0
"""From one attempt to open a lost source to the next: doubled each time, up to the longest."""

SLICE_S = 0.25
"""How often a waiting thread looks whether it should end."""

CONNECT_S = 3.0
"""What an attempt to reach a camera over the network may take, however long its frames may: then comes the next."""

MOST_STUCK = 3
"""Readers that hang and can't be ended; while there are so many, the source is not opened yet again."""

Load = Callable[[], Image.Image]


class Capture(Protocol):
    """A live source that is open, until it fails."""

    def read(self) -> Load:
        """Wait for the next frame and return what decodes it; raises SourceError when there is none any more."""

    def close(self) -> None:
        """Give the device or connection back; may be called while another thread reads."""


@dataclass(frozen=True)
class Taken:
    """A frame as the reader took it."""

    load: Load
    time: float


class Reader:
    """One opening of a capture, read by a thread of its own."""

    def __init__(self, open_capture: Callable[[], Capture], name: str) -> None:
        self._open = open_capture
        self._items: queue.Queue[Taken | SourceError] = queue.Queue(maxsize=4)
        self._abandoned = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"reader of {name}", daemon=True)
        self._thread.start()

    @property
    def hangs(self) -> bool:
        """Whether it was abandoned and still has not ended."""
        return self._abandoned.is_set() and self._thread.is_alive()

    def take(self, timeout_s: float) -> Taken | None:
        """Return the next frame, or None where none came for `timeout_s`.

        Raises:
            SourceError: the source went away.
        """
        try:
            item = self._items.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if isinstance(item, SourceError):
            raise item
        return item

    def abandon(self) -> None:
        """Let the capture be closed: at once or, where a read hangs, as soon as it returns."""
        self._abandoned.set()

    def _run(self) -> None:
        try:
            capture = self._open()
            try:
                while not self._abandoned.is_set():
                    self._hand_over(Taken(capture.read(), time.monotonic()))
            finally:
                capture.close()
        except SourceError as error:
            self._hand_over(error)

    def _hand_over(self, item: Taken | SourceError) -> None:
        while not self._abandoned.is_set():
            with contextlib.suppress(queue.Full):
                self._items.put(item, timeout=SLICE_S)
                return


class LiveSource(Source):
    """A camera or stream that may come and go.

    Args:
        name: what results call it.
        open_capture: opens it anew, asking again for size and rate.
        options: how long to wait for it.
    """

    live = endless = True

    def __init__(self, name: str, open_capture: Callable[[], Capture], options: SourceOptions) -> None:
        self.name, self._open_anew, self._options = name, open_capture, options
        self._first: Capture | None = None

    def prove(self) -> None:
        """Open the source and take a frame, since an open device proves nothing; reading goes on from there.

        Raises:
            SourceError: it can't be opened, or gives no frame.
        """
        capture = self._open_anew()
        try:
            capture.read()
        except SourceError:
            capture.close()
            raise
        self._first = capture

    def frames(self, stop: threading.Event) -> Iterator[Frame | Gap]:
        """Yield frames as they come; a loss is told of once, then the source is opened again until it is back."""
        index, wait_s, seen, lost = 0, FIRST_WAIT_S, time.monotonic(), False
        readers: list[Reader] = []
        while not stop.is_set():
            tried = time.monotonic()
            try:
                readers = self._one_more(readers)
                for taken in self._until_lost(readers[-1], stop):
                    yield Frame(self.name, index, taken.load, taken=taken.time)
                    tried = seen = time.monotonic()
                    index, wait_s, lost = index + 1, FIRST_WAIT_S, False
            except SourceError as error:
                if not lost:
                    yield Gap(self.name, SourceState.LOST, str(error))
                lost = True
            finally:
                for reader in readers:
                    reader.abandon()
            if self._given_up(seen):
                yield Gap(
                    self.name,
                    SourceState.ENDED,
                    f"{self.name}: still lost after {self._options.give_up_after_s:g} s",
                    True,
                )
                return
            # An attempt that took long is part of the wait: a camera that is back is not to wait for both.
            stop.wait(max(0.0, wait_s - (time.monotonic() - tried)))
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    def _open(self) -> Capture:
        first, self._first = self._first, None
        return self._open_anew() if first is None else first

    def _one_more(self, readers: list[Reader]) -> list[Reader]:
        """Return those of `readers` that still hang and a new one."""
        hanging = [reader for reader in readers if reader.hangs]
        if len(hanging) >= MOST_STUCK:
            raise SourceError(f"{self.name}: hangs")
        return [*hanging, Reader(self._open, self.name)]

    def _until_lost(self, reader: Reader, stop: threading.Event) -> Iterator[Taken]:
        heard = time.monotonic()
        while not stop.is_set():
            taken = reader.take(SLICE_S)
            if taken is not None:
                heard = time.monotonic()
                yield taken
            elif time.monotonic() - heard >= self._options.stall_timeout_s:
                raise SourceError(f"{self.name}: no frame for {self._options.stall_timeout_s:g} s")

    def _given_up(self, seen: float) -> bool:
        after_s = self._options.give_up_after_s
        return after_s is not None and time.monotonic() - seen >= after_s
