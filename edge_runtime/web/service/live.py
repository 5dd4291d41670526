"""The camera for many viewers: one inference a frame however many watch, and the camera off when nobody does."""

import asyncio
import io
import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, cast

import anyio
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from edge_runtime.errors import EdgeError
from edge_runtime.inference.engine import Answer, Engine
from edge_runtime.judging.rate import RollingRate
from edge_runtime.judging.results import FrameResult, SourceState
from edge_runtime.judging.scorer import FrameScorer, Verdicts
from edge_runtime.pipeline import Judged, Pipeline
from edge_runtime.pixels.drawing import draw_result
from edge_runtime.sources import Source, open_camera, open_source
from edge_runtime.web.http.problems import ProblemError
from edge_runtime.web.service.batching import BatchingQueue, QueueFullError
from edge_runtime.web.service.metrics import Metrics, temperature
from edge_runtime.web.service.uploads import Judge

log = logging.getLogger(__name__)

OPENING = "opening"
WORKERS = 2
"""Frames that are worked on at once: while one is computed, the next is decoded and looked at by the face stage."""

LINGER_S = 5.0
"""The camera stays on for so long after the last viewer has left, so that loading the page again is quick."""

RETRY_S = 2.0
"""Until a source that could not be opened is tried again."""

WIDEST = 1280
"""Pixels of the longer side that viewers are sent."""

STATUS_S = 0.25
"""How often the figures are sent."""

BOUNDARY = "frame"


def open_live(camera: str) -> Callable[[], Source]:
    """Return what opens the live page's source: a camera's number, or whatever `edge-detect` takes."""
    if camera.isdecimal():
        return lambda: open_camera(camera)
    return lambda: open_source(camera)


class QueuedEngine:
    """The engine behind the service's queue, for who computes in a thread of its own."""

    def __init__(self, engine: Engine, queue: BatchingQueue) -> None:
        self._engine, self._queue = engine, queue

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def answer(self, pixels: NDArray[np.uint8]) -> Answer:
        """Return the engine's answer as soon as the queue has room for `pixels`, uint8 [N, H, W, 3]."""
        return self._queue.submit(pixels, self._engine.answer, wait=True).result()


@dataclass(frozen=True)
class Shown:
    """What viewers see: a frame as JPEG (empty before the first), and what is said of it."""

    number: int
    jpeg: bytes
    status: dict[str, Any]


class LiveView:
    """Watches a source while somebody watches.

    Args:
        judge: its detector and queue are used.
        open_source: opens the source anew.
        metrics: where to count.
        viewers: how many may watch.
    """

    def __init__(self, judge: Judge, open_source: Callable[[], Source], metrics: Metrics, viewers: int) -> None:
        self._judge, self._open, self._metrics, self._most = judge, open_source, metrics, viewers
        self._viewers = 0
        self._left = 0.0
        self._thread: threading.Thread | None = None
        self._pipeline: Pipeline | None = None
        self._closed = threading.Event()
        self._rate = RollingRate()
        self._dropped = 0
        self._shown = Shown(0, b"", self._status(OPENING))
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed = asyncio.Event()

    @contextmanager
    def viewer(self) -> Iterator[None]:
        """Count a viewer; the first one turns the camera on.

        Raises:
            ProblemError: as many watch as may.
        """
        if self._viewers >= self._most:
            raise ProblemError("too-many-requests", f"{self._most} watch already; try again later")
        self._viewers += 1
        self._metrics.viewers.set(self._viewers)
        self._start()
        try:
            yield
        finally:
            self._viewers -= 1
            self._left = time.monotonic()
            self._metrics.viewers.set(self._viewers)

    async def shown(self) -> AsyncIterator[Shown]:
        """Yield what is shown, as it changes; a slow viewer skips frames. At least once a second something comes."""
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

    def close(self) -> None:
        """Turn the camera off for good."""
        self._closed.set()
        if self._pipeline is not None:
            self._pipeline.stop()
        self._changed.set()

    def _start(self) -> None:
        self._loop = asyncio.get_running_loop()
        if self._thread is None or not self._thread.is_alive():
            self._shown = Shown(0, b"", self._status(OPENING))
            self._thread = threading.Thread(target=self._run, name="live", daemon=True)
            self._thread.start()

    @property
    def _wanted(self) -> bool:
        watched = self._viewers > 0 or time.monotonic() - self._left < LINGER_S
        return watched and not self._closed.is_set()

    def _run(self) -> None:
        while self._wanted:
            try:
                self._watch(self._open())
            except EdgeError as error:
                self._publish(b"", self._status(SourceState.LOST.value, error=str(error)))
            except (QueueFullError, CancelledError):
                log.debug("the service has ended")
            self._closed.wait(RETRY_S)

    def _watch(self, source: Source) -> None:
        detector = self._judge.detector
        engine = cast(Engine, QueuedEngine(detector.engine, self._judge.queue))
        mine = FrameScorer(
            engine, still_faces=detector.faces, moving_faces=detector.moving_faces(), limits=detector.limits
        )
        verdicts = Verdicts(detector.engine.contract, window=detector.window, limits=detector.limits)
        self._dropped = 0
        pipeline = Pipeline([source], mine, verdicts, workers=WORKERS)
        self._pipeline = pipeline
        for judged in pipeline.results(self._stop_unwatched):
            self._take(judged)
            self._stop_unwatched()

    def _stop_unwatched(self) -> None:
        if not self._wanted and self._pipeline is not None:
            self._pipeline.stop()

    def _take(self, judged: Judged) -> None:
        result = judged.result
        if judged.picture is None:
            self._publish(self._shown.jpeg, self._status(result.state.value, error=result.error))
            return
        self._rate.add()
        self._metrics.live_frames.inc()
        self._metrics.live_dropped.inc(max(0, result.dropped - self._dropped))
        self._metrics.live_age.observe(result.age_ms / 1e3)
        self._dropped = result.dropped
        self._publish(encoded(judged.picture, result), self._status(SourceState.OK.value, result))

    def _status(self, state: str, result: FrameResult | None = None, error: str | None = None) -> dict[str, Any]:
        engine = self._judge.detector.engine
        return {
            "state": state,
            "fps": round(self._rate.per_second, 1),
            "age_ms": round(result.age_ms) if result else None,
            "dropped": self._dropped,
            "device": engine.choice.device,
            "precision": engine.choice.precision.value,
            "temperature": temperature(),
            "viewers": self._viewers,
            "faces": sorted((face.to_dict() for face in result.faces), key=lambda face: face["box"]) if result else [],
            "error": error,
        }

    def _publish(self, jpeg: bytes, status: dict[str, Any]) -> None:
        shown = Shown(self._shown.number + 1, jpeg, status)
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(self._show, shown)
        except RuntimeError:
            log.debug("the service has ended")

    def _show(self, shown: Shown) -> None:
        self._shown = shown
        self._changed.set()
        self._changed = asyncio.Event()


def encoded(picture: Image.Image, result: FrameResult) -> bytes:
    """Return a frame with what is said of it, as JPEG of at most WIDEST pixels a side."""
    drawn = draw_result(picture, result, result.notice or "")
    if max(drawn.size) > WIDEST:
        drawn.thumbnail((WIDEST, WIDEST), Image.Resampling.BILINEAR)
    file = io.BytesIO()
    drawn.save(file, "JPEG", quality=80)
    return file.getvalue()


async def mjpeg(live: LiveView) -> AsyncIterator[bytes]:
    """Yield the frames as parts of `multipart/x-mixed-replace`, as the first web cameras sent them."""
    async for shown in live.shown():
        if shown.jpeg:
            head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(shown.jpeg)}\r\n\r\n"
            yield head.encode() + shown.jpeg + b"\r\n"


async def events(live: LiveView) -> AsyncIterator[bytes]:
    """Yield the figures as server-sent events (HTML, section 9.2), a few times a second at most."""
    async for shown in live.shown():
        yield f"data: {json.dumps(shown.status)}\n\n".encode()
        await asyncio.sleep(STATUS_S)


class Stream(StreamingResponse):
    """An answer without end, which ends as soon as its reader goes away.

    Args:
        content_type: of what is sent.
        parts: what is sent.
        while_open: entered before the first part, left when the reader has gone.
    """

    def __init__(
        self,
        content_type: str,
        parts: AsyncIterator[bytes],
        while_open: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        # nginx would otherwise collect parts before it passes them on.
        super().__init__(parts, media_type=content_type, headers={"X-Accel-Buffering": "no"})
        self._while_open = while_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the reader goes away or nothing is left."""
        with self._while_open():
            async with anyio.create_task_group() as group:
                group.start_soon(_until_gone, receive, group.cancel_scope)
                with suppress(OSError):
                    await self.stream_response(send)
                group.cancel_scope.cancel()


async def _until_gone(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
