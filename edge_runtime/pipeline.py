"""From sources to results: every source is read by its own thread, frames are judged by a few, results keep order."""

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from PIL import Image

from edge_runtime.errors import EdgeError
from edge_runtime.judging.results import FrameResult
from edge_runtime.judging.scorer import ScoredFrame, Verdicts
from edge_runtime.sources import Frame, Gap, Source

WAITING = 4
"""Frames of a file source that may wait to be judged; of a live source it is one, the newest."""

TICK_S = 0.25
"""How often the pipeline looks up when nothing happens."""


class Inbox:
    """Where the threads of all sources leave their frames: bounded, the newest wins for live ones."""

    def __init__(self, sources: Sequence[Source], changed: threading.Condition) -> None:
        self._changed = changed
        self._live = [source.live for source in sources]
        self._waiting: list[deque[Frame | Gap]] = [deque() for _ in sources]
        self._dropped = [0 for _ in sources]
        self._running = len(sources)
        self._turn = 0

    def put(self, number: int, item: Frame | Gap, stop: threading.Event) -> None:
        """Leave `item` of source `number`: at once for a live one, else as soon as there is room."""
        with self._changed:
            waiting = self._waiting[number]
            if not self._live[number]:
                while len(waiting) >= WAITING and not stop.is_set():
                    self._changed.wait(TICK_S)
            elif waiting and isinstance(waiting[-1], Frame) and isinstance(item, Frame):
                waiting.pop()
                self._dropped[number] += 1
            waiting.append(item)
            self._changed.notify_all()

    def take(self) -> Frame | Gap | None:
        """Return the next item, each source in its turn; None where nothing waits."""
        for step in range(len(self._waiting)):
            number = (self._turn + step) % len(self._waiting)
            if self._waiting[number]:
                self._turn = number + 1
                item = self._waiting[number].popleft()
                self._changed.notify_all()
                return replace(item, dropped=self._dropped[number]) if isinstance(item, Frame) else item
        return None

    def close_one(self) -> None:
        """Note that a source has ended."""
        with self._changed:
            self._running -= 1
            self._changed.notify_all()

    @property
    def over(self) -> bool:
        """Whether every source has ended and nothing waits."""
        return self._running == 0 and not self.ready

    @property
    def ready(self) -> bool:
        """Whether something waits."""
        return any(self._waiting)


@dataclass(frozen=True)
class Judged:
    """A result and what sinks need beside it.

    Attributes:
        result: what is said.
        picture: what it is said of; None for a gap or an unreadable picture.
        failed: whether an input could not be read.
        fps: the rate that the source says it has; None where frames come when they come.
        still: it is said of a picture that stands for itself, whose source is not heard of again.
    """

    result: FrameResult
    picture: Image.Image | None = None
    failed: bool = False
    fps: float | None = None
    still: bool = False


@dataclass(frozen=True)
class Work:
    """A frame that is being scored, or a gap on its way, and when that began in monotonic seconds."""

    work: Future[ScoredFrame] | Gap
    began: float = field(default_factory=time.monotonic)


class Pipeline:
    """Reads sources and judges their frames.

    Args:
        sources: what to read.
        score: judges one frame; called by `workers` threads at once.
        verdicts: turns scored frames into results, in order.
        workers: how many frames are worked on at once. With a live source it should be no more than the device can
            truly compute at once, since a frame that waits grows old.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        score: Callable[[Frame], ScoredFrame],
        verdicts: Verdicts,
        *,
        workers: int,
    ) -> None:
        self._sources, self._score, self._verdicts = sources, score, verdicts
        self._workers = workers
        self._stop, self._leave = threading.Event(), threading.Event()
        self._changed = threading.Condition()
        self._inbox = Inbox(sources, self._changed)
        self._pending: deque[Work] = deque()

    def stop(self) -> None:
        """End soon: no frame more is read, those that are being judged are still told of. Safe in a signal handler."""
        self._stop.set()
        self._leave.set()

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stop.is_set()

    @property
    def busy_s(self) -> float:
        """For how many seconds the oldest frame has been worked on; 0 where none is."""
        return time.monotonic() - self._pending[0].began if self._pending else 0.0

    def results(self, tick: Callable[[], None] = lambda: None) -> Generator[Judged, None, None]:
        """Yield a result for every frame that is judged and for every gap, those of one source in order.

        Args:
            tick: called about four times a second while no result is ready.
        """
        threads = [
            threading.Thread(target=self._read, args=(number, source), name=f"source {source.name}", daemon=True)
            for number, source in enumerate(self._sources)
        ]
        for thread in threads:
            thread.start()
        with ThreadPoolExecutor(self._workers, thread_name_prefix="judge") as pool:
            try:
                while self._wait(tick):
                    self._submit(pool)
                    yield from self._finished()
            finally:
                self._leave.set()
        for thread in threads:
            thread.join(timeout=1.0)

    def _read(self, number: int, source: Source) -> None:
        try:
            for item in source.frames(self._leave):
                self._inbox.put(number, item, self._leave)
                if self._leave.is_set():
                    break
        except EdgeError as error:
            self._inbox.put(number, Gap.failure(source.name, error), self._leave)
        # A source that fails in any other way is a failed input too, not one that has ended.
        except Exception as error:
            text = f"{source.name}: can't be read further ({type(error).__name__}: {error})"
            self._inbox.put(number, Gap.failure(source.name, text), self._leave)
        finally:
            self._inbox.close_one()

    def _wait(self, tick: Callable[[], None]) -> bool:
        """Wait until there is something to do; return False when all is done."""
        while True:
            with self._changed:
                if self._changed.wait_for(self._something_to_do, TICK_S):
                    return bool(self._pending) or not (self._inbox.over or self._stop.is_set())
            tick()

    def _something_to_do(self) -> bool:
        if self._pending and self._head_done():
            return True
        if self._stop.is_set():
            return not self._pending
        return (self._inbox.ready and len(self._pending) < self._workers) or (self._inbox.over and not self._pending)

    def _head_done(self) -> bool:
        work = self._pending[0].work
        return isinstance(work, Gap) or work.done()

    def _submit(self, pool: ThreadPoolExecutor) -> None:
        with self._changed:
            while len(self._pending) < self._workers and not self._stop.is_set() and (taken := self._inbox.take()):
                if isinstance(taken, Gap):
                    self._pending.append(Work(taken))
                else:
                    future = pool.submit(self._score, taken)
                    self._pending.append(Work(future))
                    future.add_done_callback(self._wake)

    def _wake(self, _: Future[ScoredFrame]) -> None:
        with self._changed:
            self._changed.notify_all()

    def _finished(self) -> Iterator[Judged]:
        if not self._pending or not self._head_done():
            return
        head = self._pending.popleft().work
        if isinstance(head, Gap):
            yield Judged(self._verdicts.of_gap(head), failed=head.failed)
        else:
            scored = head.result()
            still = scored.frame.still
            failed = scored.error is not None and still
            yield Judged(self._verdicts.of_frame(scored), scored.picture, failed, scored.frame.fps, still)
