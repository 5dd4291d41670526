"""The live camera: each frame is judged once for all viewers, and the camera is off while nobody watches."""

import asyncio
import io
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import anyio
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_runtime.detector import Detector
from edge_runtime.errors import EdgeError
from edge_runtime.inference.engine import Answer, Engine
from edge_runtime.judging.live import LiveScorer
from edge_runtime.judging.rate import RollingRate
from edge_runtime.judging.results import FrameResult, SourceState
from edge_runtime.judging.scorer import FrameScorer, ScoredFrame, Verdicts
from edge_runtime.judging.tracking import TrackNumbers
from edge_runtime.monitoring.metrics import temperature
from edge_runtime.pipeline import Pipeline
from edge_runtime.pixels.drawing import draw_result
from edge_runtime.printable import printable
from edge_runtime.sources import Frame, Source, open_camera, open_source
from edge_runtime.sources.paced import PacedVideo
from edge_runtime.web.http.problems import ProblemError, ProblemKind
from edge_runtime.web.service.batching import BatchingQueue, QueueFullError
from edge_runtime.web.service.metrics import Metrics
from edge_runtime.web.service.uploads import UploadJudge

log = logging.getLogger(__name__)

OPENING = "opening"
"""State before the first frame; the others are those of `SourceState`."""

WORKERS = 2
"""Frames worked on at once: while one is computed, the next is decoded and its faces are found."""

LINGER_S = 5.0
"""The camera stays on this long after the last viewer left, so that reloading the page is quick."""

RETRY_S = 2.0
"""Pause before a source that ended or could not be opened is opened again."""

MOST_PIXELS = 1280
"""Longer side of the frames that viewers get."""


def camera_opener(camera: str) -> Callable[[], Source]:
    """Return a function that opens `camera`: a camera's number, or whatever `edge-detect` takes."""

    def open_anew() -> Source:
        source = open_camera(camera) if camera.isdecimal() else open_source(camera)
        return source if source.live or source.still else PacedVideo(source)

    return open_anew


class QueuedEngine:
    """An engine whose answers go through the service's queue; for threads, since it blocks."""

    def __init__(self, engine: Engine, queue: BatchingQueue) -> None:
        self._engine, self._queue = engine, queue

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def answer(self, pixels: NDArray[np.uint8]) -> Answer:
        """Wait for room in the queue and return the engine's answer for `pixels`, uint8 [N, H, W, 3]."""
        return self._queue.submit(pixels, self._engine.answer, wait=True).result()


@dataclass(frozen=True)
class Shown:
    """What viewers see: the frame as JPEG (empty before the first) and the status as JSON values."""

    jpeg: bytes
    status: dict[str, Any]


class CameraFeed:
    """Judges a camera's frames while somebody watches; `camera` is as given on the command line."""

    def __init__(self, judge: UploadJudge, camera: str, metrics: Metrics, *, most_viewers: int) -> None:
        self._judge, self._open, self._metrics, self._most_viewers = judge, camera_opener(camera), metrics, most_viewers
        # Errors name the source, and an address may contain a password in many forms. Path.exists fails on odd names.
        self._errors_are_private = not (camera.isdecimal() or os.path.exists(camera))  # noqa: PTH110
        self._logged: str | None = None
        self._viewers = 0
        self._last_left = 0.0
        self._thread: threading.Thread | None = None
        self._pipeline: Pipeline | None = None
        self._switching = threading.Lock()
        # Also from one viewer to the next, so that each person has a number of their own.
        self._numbers = TrackNumbers()
        self._closed = threading.Event()
        self._rate = RollingRate()
        self._dropped = 0
        self._shown = Shown(b"", self._status(OPENING))
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed = asyncio.Event()

    @contextmanager
    def viewer(self) -> Iterator[None]:
        """Count a viewer; the first one turns the camera on.

        Raises:
            ProblemError: too many viewers.
        """
        if self._viewers >= self._most_viewers:
            detail = f"{self._most_viewers} viewers are watching; try again later"
            raise ProblemError(ProblemKind.TOO_MANY_REQUESTS, detail)
        self._viewers += 1
        self._metrics.viewers.set(self._viewers)
        self._loop = asyncio.get_running_loop()
        if self._thread is None or not self._thread.is_alive():
            self._shown = Shown(b"", self._status(OPENING))
            self._thread = threading.Thread(target=self._run, name="live", daemon=True)
            self._thread.start()
        try:
            yield
        finally:
            self._viewers -= 1
            self._last_left = time.monotonic()
            self._metrics.viewers.set(self._viewers)

    async def updates(self) -> AsyncIterator[Shown]:
        """Yield what viewers see whenever it changes, at least once a second; slow viewers skip frames."""
        last: Shown | None = None
        while not self._closed.is_set():
            changed = self._changed
            if self._shown is not last:
                last = self._shown
                yield last
            with anyio.move_on_after(1.0) as waited:
                await changed.wait()
            if waited.cancelled_caught:
                last = None

    @contextmanager
    def switching(self, detector: Detector) -> Iterator[None]:
        """Judge with `detector` from the next frame after the block on, unless the block fails. Thread-safe.

        Raises:
            BundleError: it can't find faces in video; the block is not entered.
        """
        with self._switching:
            judges = self._judges(detector)
            yield
            if self._pipeline is not None:
                self._pipeline.switch(*judges)

    def close(self) -> None:
        """Turn the camera off for good."""
        self._closed.set()
        if self._pipeline is not None:
            self._pipeline.stop()
        self._changed.set()

    def _is_wanted(self) -> bool:
        watched = self._viewers > 0 or time.monotonic() - self._last_left < LINGER_S
        return watched and not self._closed.is_set()

    def _run(self) -> None:
        while self._is_wanted():
            try:
                self._watch(self._open())
            except EdgeError as error:
                self._publish_error(SourceState.LOST, str(error))
            except (QueueFullError, CancelledError):
                log.debug("the service has ended")
            # Whatever else fails, the source is opened again.
            except Exception:
                log.exception("live page: internal error")
                self._publish(b"", self._status(SourceState.LOST.value))
            self._closed.wait(RETRY_S)

    def _judges(self, detector: Detector) -> tuple[Callable[[Frame], ScoredFrame], Verdicts]:
        """Return what a pipeline judges with."""
        engine = cast(Engine, QueuedEngine(detector.engine, self._judge.queue))
        every_frame = FrameScorer(
            engine,
            still_faces=detector.faces,
            moving_faces=detector.moving_faces(),
            limits=detector.limits,
            careful=detector.careful,
        )
        options: dict[str, Any] = {"window": detector.window, "numbers": self._numbers}
        scorer: Callable[[Frame], ScoredFrame]
        scorer = every_frame if detector.always else LiveScorer(every_frame, **options)
        return scorer, Verdicts(detector.engine.contract, limits=detector.limits, **options)

    def _watch(self, source: Source) -> None:
        """Judge and publish frames until the source ends or nobody watches."""
        self._dropped = 0
        with self._switching:
            self._pipeline = pipeline = Pipeline([source], *self._judges(self._judge.detector), workers=WORKERS)

        def stop_if_unwatched() -> None:
            if not self._is_wanted():
                pipeline.stop()

        for judged in pipeline.results(stop_if_unwatched):
            if self._metrics.monitor is not None:
                judged = self._metrics.monitor.observe(judged)
            result = judged.result
            if (picture := judged.shown()) is None:
                self._publish_error(result.state, result.error or "")
            else:
                self._rate.add()
                self._metrics.live_frames.inc()
                self._metrics.live_dropped.inc(max(0, result.dropped - self._dropped))
                self._metrics.live_age.observe(result.age_ms / 1e3)
                self._dropped, self._logged = result.dropped, None
                self._publish(encode_frame(picture, result), self._status(result.state.value, result))
            stop_if_unwatched()

    def _status(self, state: str, result: FrameResult | None = None, error: str | None = None) -> dict[str, Any]:
        choice = self._judge.detector.engine.choice
        return {
            "state": state,
            "fps": round(self._rate.per_second, 1),
            "age_ms": round(result.age_ms) if result else None,
            "dropped": self._dropped,
            "device": choice.device,
            "precision": choice.precision.value,
            "temperature": temperature(),
            "viewers": self._viewers,
            "drift": result.drift if result else None,
            "faces": sorted((face.to_dict() for face in result.faces), key=lambda face: face["box"]) if result else [],
            "error": error,
        }

    def _publish_error(self, state: SourceState, error: str) -> None:
        if error != self._logged:
            log.warning("live page: %s", printable(error))
            self._logged = error
        shown = None if self._errors_are_private else error
        if state is SourceState.OK:
            # A broken frame: the last good one stays.
            self._publish(self._shown.jpeg, {**self._shown.status, "error": shown})
        else:
            self._publish(b"", self._status(state.value, error=shown))

    def _publish(self, jpeg: bytes, status: dict[str, Any]) -> None:
        """Show viewers something new; called by the feed's thread."""

        def show(shown: Shown) -> None:
            self._shown = shown
            self._changed.set()
            self._changed = asyncio.Event()

        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(show, Shown(jpeg, status))
        except RuntimeError:
            log.debug("the service has ended")


def encode_frame(picture: Image.Image, result: FrameResult) -> bytes:
    """Return a frame with its verdicts drawn on it, as JPEG of at most MOST_PIXELS on its longer side."""
    drawn = draw_result(picture, result, result.notice or "")
    drawn.thumbnail((MOST_PIXELS, MOST_PIXELS), Image.Resampling.BILINEAR)
    file = io.BytesIO()
    drawn.save(file, "JPEG", quality=80)
    return file.getvalue()
