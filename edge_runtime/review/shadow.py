"""A second detector that judges the same faces in its spare time: it skips what it has no time for."""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

from edge_runtime.errors import DeviceError, EdgeError
from edge_runtime.inference.engine import Engine, choose, free_threads
from edge_runtime.judging.decide import decide
from edge_runtime.judging.results import FaceResult, FrameResult
from edge_runtime.judging.scorer import Found, ScoredFrame, all_crops, prepare_face, score_faces
from edge_runtime.model.bundle import Bundle
from edge_runtime.pixels.quality import DEFAULT_LIMITS, QualityLimits

SHARE = 0.12
"""Share of the time in which it may compute, on one thread: the first detector loses less than 15 % of its rate."""

BURST_S = 1.0
"""Time that it may save up while there are no faces."""


class Budget:
    """Time that work may take: a share of the time that passes, of which only BURST_S is saved up."""

    def __init__(self, share: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._share, self._clock = SHARE if share is None else share, clock
        self._left_s, self._updated = 0.0, clock()

    @property
    def is_left(self) -> bool:
        """Whether work may begin now."""
        now = self._clock()
        self._left_s = min(self._left_s + self._share * (now - self._updated), BURST_S)
        self._updated = now
        return self._left_s > 0.0

    def spend(self, seconds: float) -> None:
        """Note that work took so long."""
        self._left_s -= seconds


@dataclass(frozen=True)
class Compared:
    """A frame that both detectors judged.

    Attributes:
        scored: the frame and its picture.
        result: the first detector's.
        faces: for each face that both could judge: its index in `result`, and what either says of this frame alone.
    """

    scored: ScoredFrame
    result: FrameResult
    faces: tuple[tuple[int, FaceResult, FaceResult], ...]


class Shadow:
    """Judges frames in a thread of its own, one at a time, on one thread of the CPU.

    Args:
        bundle: of the second detector.
        limits: of the first: what it did not judge is not judged here.
        budget: when it may work.

    Raises:
        BundleError, DeviceError: it can't be started.
    """

    def __init__(self, bundle: Bundle, *, limits: QualityLimits = DEFAULT_LIMITS, budget: Budget | None = None) -> None:
        one_thread = {"NUM_STREAMS": 1, **free_threads(1)}
        self.engine = Engine(bundle, replace(choose(bundle, "CPU", "auto", "LATENCY"), properties=one_thread))
        self._limits, self._budget = limits, budget or Budget()
        self._changed = threading.Condition()
        self._job: tuple[ScoredFrame, FrameResult, tuple[int, ...]] | None = None
        self._closed = False
        self._error: EdgeError | None = None
        self._compared: deque[Compared] = deque()
        self._thread = threading.Thread(target=self._work, name="shadow", daemon=True)
        self._thread.start()

    @property
    def is_busy(self) -> bool:
        """Whether a frame is in work."""
        return self._job is not None

    def offer(self, scored: ScoredFrame, result: FrameResult, faces: tuple[int, ...]) -> bool:
        """Judge the faces of these indices if there is time; return whether there is."""
        with self._changed:
            if self._job is not None or self._closed or not self._budget.is_left:
                return False
            self._job = (scored, result, faces)
            self._changed.notify_all()
            return True

    def take(self) -> list[Compared]:
        """Return what was compared since the last call.

        Raises:
            DeviceError: the second detector failed.
        """
        with self._changed:
            if self._error is not None:
                raise self._error
            found = list(self._compared)
            self._compared.clear()
        return found

    def close(self, wait_s: float = 10.0) -> None:
        """Finish the frame in work."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(wait_s)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._job is not None or self._closed)
                if self._job is None:
                    return
                job = self._job
            began = time.monotonic()
            try:
                compared = self._compare(*job)
            except Exception as error:
                # Raised again in the thread that takes results.
                with self._changed:
                    self._error = error if isinstance(error, EdgeError) else DeviceError(repr(error))
                    self._job, self._closed = None, True
                return
            with self._changed:
                self._compared.append(compared)
                self._job = None
                self._budget.spend(time.monotonic() - began)

    def _compare(self, scored: ScoredFrame, result: FrameResult, faces: tuple[int, ...]) -> Compared:
        picture = scored.shown()
        assert picture is not None
        own = [scored.faces[index] for index in faces]
        prepared = [
            # Without a box the whole picture was the face.
            prepare_face(
                picture, None if face.detection is None else cast(Found, face), self.engine.contract, self._limits
            )
            for face in own
        ]
        crops = all_crops(prepared)
        answer = self.engine.no_answer if crops is None else self.engine.answer(crops)
        judged = score_faces(prepared, answer, picture.size)
        pairs = (
            (index, decide(first, scored.calibration, self._limits), decide(second, answer.calibration, self._limits))
            for index, first, second in zip(faces, own, judged, strict=True)
        )
        return Compared(scored, result, tuple(pair for pair in pairs if None not in (pair[1].score, pair[2].score)))
