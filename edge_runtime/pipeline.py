"""From sources to results: a thread reads each source, a few judge frames, and results keep their order."""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
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
"""How long the pipeline sleeps at most when nothing happens."""


class Inbox:
    """Where the reader threads put their frames. It is bounded; of a live source only the newest frame waits."""

    def __init__(self, sources: Sequence[Source], changed: threading.Condition) -> None:
        self._changed = changed
        self._live = [source.live for source in sources]
        self._waiting: list[deque[Frame | Gap]] = [deque() for _ in sources]
        self._dropped = [0 for _ in sources]
        self._turns, self._gaps = Counter[str](), Counter[str]()
        self._running = len(sources)
        self._turn = 0

    def put(self, number: int, item: Frame | Gap, stop: threading.Event) -> None:
        """Add an item of source `number`; for a file source, wait until there is room."""
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

    def take(self) -> tuple[int, Frame | Gap] | None:
        """Return the number of a source and its next item, sources taking turns; None if nothing waits."""
        for step in range(len(self._waiting)):
            number = (self._turn + step) % len(self._waiting)
            if self._waiting[number]:
                self._turn = number + 1
                item = self._waiting[number].popleft()
                self._changed.notify_all()
                return number, self._marked(number, item)
        return None

    def _marked(self, number: int, item: Frame | Gap) -> Frame | Gap:
        """Tell a frame what came before it. By name, since results know sources by their names."""
        live, name = self._live[number], item.source
        if isinstance(item, Gap):
            self._gaps[name] += live
            return item
        self._turns[name] += live
        turn, gaps = max(0, self._turns[name] - 1), self._gaps[name]
        return replace(item, dropped=self._dropped[number], live=live, turn=turn, gaps=gaps)

    def begin_turns(self) -> None:
        """Count the frames of live sources from 0 again, for a new scorer."""
        self._turns.clear()

    def close_one(self) -> None:
        """Note that a source has ended."""
        with self._changed:
            self._running -= 1
            self._changed.notify_all()

    @property
    def ready(self) -> bool:
        """Whether an item waits."""
        return any(self._waiting)

    @property
    def over(self) -> bool:
        """Whether every source has ended and nothing waits."""
        return self._running == 0 and not self.ready


@dataclass(frozen=True)
class Judged:
    """A result, and what sinks need besides it.

    Attributes:
        result: of the frame or gap.
        picture: the frame; None for a gap, an unreadable picture, or a live frame: see `shown`.
        failed: whether an input could not be read.
        fps: the source's nominal frame rate; None if frames have no fixed rate.
        still: whether the frame is an independent picture.
        position_s: the frame's time in its video, in seconds; None if frames arrive in real time.
        taken: when the frame was taken or read, in monotonic seconds; 0 for a gap.
        given: the source as it was given: for a picture in a folder, the folder.
        scored: the frame before its verdicts, with exact boxes and each face's own logit; None for a gap.
    """

    result: FrameResult
    picture: Image.Image | None = None
    failed: bool = False
    fps: float | None = None
    still: bool = False
    position_s: float | None = None
    taken: float = 0.0
    given: Source | None = None
    scored: ScoredFrame | None = None

    def shown(self) -> Image.Image | None:
        """Return the frame as RGB; None for a gap or an unreadable picture."""
        return self.picture if self.scored is None else self.scored.shown()


@dataclass(frozen=True)
class _Work:
    """A frame being scored or a gap being passed on, its source and who gives the verdicts.

    `began` is when work on it began, in monotonic seconds.
    """

    item: Future[ScoredFrame] | Gap
    given: Source
    verdicts: Verdicts
    began: float = field(default_factory=time.monotonic)

    @property
    def done(self) -> bool:
        return isinstance(self.item, Gap) or self.item.done()


class Pipeline:
    """Reads sources and judges their frames.

    Args:
        sources: what to read.
        score: scores one frame; called by `workers` threads at once.
        verdicts: turns scored frames into results, in order.
        workers: frames in work at once. With a live source, hardly more than the device computes at once: a frame
            that waits gets old.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        score: Callable[[Frame], ScoredFrame],
        verdicts: Verdicts,
        *,
        workers: int,
    ) -> None:
        self._sources, self._judges = sources, (score, verdicts)
        self._workers = workers
        self._stop, self._leave = threading.Event(), threading.Event()
        self._changed = threading.Condition()
        self._inbox = Inbox(sources, self._changed)
        self._pending: deque[_Work] = deque()

    def switch(self, score: Callable[[Frame], ScoredFrame], verdicts: Verdicts) -> None:
        """Judge with these from the next frame on; frames in work get their verdicts as they began. Thread-safe."""
        with self._changed:
            self._judges = score, verdicts
            self._inbox.begin_turns()

    def stop(self) -> None:
        """Read no more frames and end after those in work. Safe in a signal handler."""
        self._stop.set()
        self._leave.set()

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._stop.is_set()

    @property
    def busy_s(self) -> float:
        """Seconds since work on the oldest frame in work began; 0 if there is none."""
        return time.monotonic() - self._pending[0].began if self._pending else 0.0

    @property
    def waited_s(self) -> float:
        """Seconds since the oldest faces that a device still has were given to it, if frames don't wait for them."""
        return getattr(self._judges[0], "waited_s", 0.0)

    def results(self, tick: Callable[[], None] = lambda: None) -> Generator[Judged, None, None]:
        """Yield a result for every judged frame and every gap, in order within each source.

        Args:
            tick: called about four times per second while no result is ready.
        """
        threads = [
            threading.Thread(target=self._read, args=(number, source), name=f"source {source.name}", daemon=True)
            for number, source in enumerate(self._sources)
        ]
        for thread in threads:
            thread.start()
        try:
            with ThreadPoolExecutor(self._workers, thread_name_prefix="judge") as pool:
                while self._wait(tick):
                    self._submit(pool)
                    if self._pending and self._pending[0].done:
                        yield self._judged(self._pending.popleft())
        finally:
            self._leave.set()
            # A thread inside OpenCV while Python exits would abort the process.
            for thread in threads:
                thread.join(timeout=2.0)

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
        """Wait until there is something to do; return False when everything is done."""

        def something_to_do() -> bool:
            if self._pending and self._pending[0].done:
                return True
            if self._stop.is_set():
                return not self._pending
            room = self._inbox.ready and len(self._pending) < self._workers
            return room or (self._inbox.over and not self._pending)

        while True:
            with self._changed:
                if self._changed.wait_for(something_to_do, TICK_S):
                    return bool(self._pending) or not (self._inbox.over or self._stop.is_set())
            tick()

    def _submit(self, pool: ThreadPoolExecutor) -> None:
        def wake(_: Future[ScoredFrame]) -> None:
            with self._changed:
                self._changed.notify_all()

        with self._changed:
            while len(self._pending) < self._workers and not self._stop.is_set() and (taken := self._inbox.take()):
                number, item = taken
                score, verdicts = self._judges
                if isinstance(item, Gap):
                    self._pending.append(_Work(item, self._sources[number], verdicts))
                else:
                    future = pool.submit(score, item)
                    self._pending.append(_Work(future, self._sources[number], verdicts))
                    future.add_done_callback(wake)

    def _judged(self, work: _Work) -> Judged:
        if isinstance(work.item, Gap):
            return Judged(work.verdicts.of_gap(work.item), failed=work.item.failed, given=work.given)
        scored = work.item.result()
        frame = scored.frame
        return Judged(
            result=work.verdicts.of_frame(scored),
            picture=scored.picture,
            failed=scored.error is not None and frame.still,
            fps=frame.fps,
            still=frame.still,
            position_s=frame.position_s,
            taken=frame.taken,
            given=work.given,
            scored=scored,
        )
