"""Live sources, reopened when they are lost or a read hangs; each is read in its own thread."""

import atexit
import contextlib
import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Protocol

from PIL import Image

from edge_runtime.errors import SourceError
from edge_runtime.judging.results import SourceState
from edge_runtime.sources import Frame, Gap, Source, SourceOptions

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 4.0
"""Time between two attempts to reopen a lost source; it doubles with each attempt, up to the longest."""

SLICE_S = 0.25
"""How often a waiting thread checks whether to end."""

CONNECT_S = 3.0
"""Deadline for connecting to a network camera; shorter than the stall timeout, so that the next attempt is soon."""

MOST_STUCK = 3
"""While this many readers hang in a driver, the source is not opened again."""

EXIT_S = 1.0
"""How long the process waits at its exit for readers that are still inside OpenCV, which could abort it."""

_running: "weakref.WeakSet[threading.Thread]" = weakref.WeakSet()


@atexit.register
def _wait_for_readers() -> None:
    ends = time.monotonic() + EXIT_S
    for thread in list(_running):
        thread.join(max(0.0, ends - time.monotonic()))


Load = Callable[[], Image.Image]


class Capture(Protocol):
    """An open live source."""

    def read(self) -> Load:
        """Wait for the next frame and return what decodes it; raises SourceError if there is none."""

    def close(self) -> None:
        """Release the device or connection; may be called while another thread reads."""


Taken = tuple[Load, float]
"""What decodes a frame, and the monotonic time at which it was read."""


class Reader:
    """Opens a capture and reads it, in its own thread."""

    def __init__(self, open_capture: Callable[[], Capture], name: str) -> None:
        self._open, self._name = open_capture, name
        self._items: queue.Queue[Taken] = queue.Queue(maxsize=4)
        self._error: SourceError | None = None
        self._abandoned = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"reader of {name}", daemon=True)
        _running.add(self._thread)
        self._thread.start()

    @property
    def hangs(self) -> bool:
        """Whether it was abandoned and still runs."""
        return self._abandoned.is_set() and self._thread.is_alive()

    def take(self, timeout_s: float) -> Taken | None:
        """Return the next frame, None if there was none for `timeout_s`; raises SourceError if the source is lost."""
        ends = time.monotonic() + timeout_s
        while (left := ends - time.monotonic()) > 0:
            failed = self._error
            with contextlib.suppress(queue.Empty):
                return self._items.get(timeout=0.0 if failed else min(left, SLICE_S))
            if failed:
                raise failed
        return None

    def abandon(self, wait_s: float = 0.0) -> None:
        """Close the capture as soon as its read returns; wait at most `wait_s` for that."""
        self._abandoned.set()
        self._thread.join(wait_s)

    def _run(self) -> None:
        try:
            capture = self._open()
            try:
                while not self._abandoned.is_set():
                    taken = capture.read(), time.monotonic()
                    while not self._abandoned.is_set():
                        with contextlib.suppress(queue.Full):
                            self._items.put(taken, timeout=SLICE_S)
                            break
            finally:
                capture.close()
        except SourceError as error:
            self._error = error
        # A driver or library that fails in its own way is a lost source too, not a thread that dies unnoticed.
        except Exception as error:
            self._error = SourceError(f"{self._name}: {type(error).__name__} ({error})")


class LiveSource(Source):
    """A camera or stream that may come and go; `open_capture` is called again after every loss."""

    live = endless = True

    def __init__(self, name: str, open_capture: Callable[[], Capture], options: SourceOptions) -> None:
        self.name, self._open, self._options = name, open_capture, options
        self._first: Reader | None = None
        # `prove` may still run, in its own thread, when `frames` begins: only one of them opens the source.
        self._lock, self._is_read = threading.Lock(), False

    def prove(self) -> None:
        """Raise SourceError unless the source opens and gives a frame; `frames` then continues with it."""
        with self._lock:
            if self._is_read:
                return
            self._first = reader = Reader(self._open, self.name)
        try:
            if reader.take(CONNECT_S + self._options.stall_timeout_s) is None:
                raise self._stalled()
        except SourceError:
            reader.abandon()
            raise

    def frames(self, stop: threading.Event) -> Iterator[Frame | Gap]:
        """Yield frames as they come. A loss yields one gap; the source is then reopened until it is back."""
        index, wait_s, seen, lost = 0, FIRST_WAIT_S, time.monotonic(), False
        stuck: list[Reader] = []
        with self._lock:
            self._is_read, first, self._first = True, self._first, None
        while not stop.is_set():
            tried = time.monotonic()
            reader, first = first, None
            try:
                if reader is None:
                    if len(stuck) >= MOST_STUCK:
                        raise SourceError(f"{self.name}: hangs")
                    reader = Reader(self._open, self.name)
                for load, taken in self._until_lost(reader, stop):
                    yield Frame(self.name, index, load, taken=taken)
                    tried = seen = time.monotonic()
                    index, wait_s, lost = index + 1, FIRST_WAIT_S, False
            except SourceError as error:
                if not lost:
                    yield Gap(self.name, SourceState.LOST, error=str(error))
                lost = True
            finally:
                if reader is not None:
                    reader.abandon(SLICE_S)
                    stuck.append(reader)
                stuck = [reader for reader in stuck if reader.hangs]
            give_up_s = self._options.give_up_after_s
            if give_up_s is not None and time.monotonic() - seen >= give_up_s:
                yield Gap.failure(self.name, f"{self.name}: still lost after {give_up_s:g} s")
                return
            # The time that a slow attempt took counts as waiting, so that a camera that is back is found soon.
            stop.wait(max(0.0, wait_s - (time.monotonic() - tried)))
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    def _until_lost(self, reader: Reader, stop: threading.Event) -> Iterator[Taken]:
        heard = time.monotonic()
        while not stop.is_set():
            if (taken := reader.take(SLICE_S)) is not None:
                heard = time.monotonic()
                yield taken
            elif time.monotonic() - heard >= self._options.stall_timeout_s:
                raise self._stalled()

    def _stalled(self) -> SourceError:
        return SourceError(f"{self.name}: no frame for {self._options.stall_timeout_s:g} s")
