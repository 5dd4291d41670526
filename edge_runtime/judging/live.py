"""Scores live frames with no more work than they are worth; `edge_runtime.judging.attention` decides that."""

import concurrent.futures
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from edge_runtime.defaults import WINDOW
from edge_runtime.errors import PictureError
from edge_runtime.inference.engine import Answer
from edge_runtime.judging.attention import (
    FRESH,
    OVERDUE_S,
    RECHECK_S,
    WAIT_FRAMES,
    CropBudget,
    Searches,
    Standing,
    Stillness,
    neediest,
)
from edge_runtime.judging.decide import ScoredFace, decide
from edge_runtime.judging.following import follow
from edge_runtime.judging.results import Reason
from edge_runtime.judging.scorer import (
    Found,
    FrameScorer,
    PreparedFace,
    ScoredFrame,
    all_crops,
    find_faces,
    prepare_face,
    score_faces,
)
from edge_runtime.judging.tracking import Shots, Track, Tracker, TrackNumbers
from edge_runtime.judging.turns import Turns
from edge_runtime.model.contract import Verdict
from edge_runtime.pixels.boxes import Box
from edge_runtime.pixels.quality import too_small
from edge_runtime.sources import Frame
from edge_runtime.sources.view import Glance, LoadedView, View

USUAL_INTERVAL_S = 0.04
"""Time between frames until it is known."""

CELL = 5
"""Side of a cell of `Stillness`, in pixels of the grey copy."""

FOREVER_S = 1e6
"""Without a clock, frames wait this long."""

DEVICE_THREADS = 4
"""Frames whose faces may be with the device at once."""


@dataclass(frozen=True)
class _Followed:
    """A face where it should be now, by its motion since it was found."""

    box: Box
    detection: float


@dataclass(frozen=True)
class _Face:
    """A face in one frame, None for the whole picture, and its track."""

    found: Found | None
    track: Track


class LiveScorer:
    """Scores the frames of live sources with attention and all others like `scorer`, in one pipeline.

    Faces are searched in every frame only until their tracks are steady, and are followed in between; as many are
    judged as the device answers in time, those that need it most; and while nothing moves, nothing is done. What was
    not judged in a frame keeps its track's verdict and says so (`FaceResult.carried_s`).

    Args:
        scorer: the engine, face detector and limits.
        window: how many of a face's last judged frames its verdict uses.
        numbers: of the tracks; None begins with 1.
        clock: monotonic seconds, as in `Frame.taken`; None lets frames wait for their logits as long as that takes.
    """

    def __init__(
        self,
        scorer: FrameScorer,
        *,
        window: int = WINDOW,
        numbers: TrackNumbers | None = None,
        clock: Callable[[], float] | None = time.monotonic,
    ) -> None:
        self._numbers = TrackNumbers() if numbers is None else numbers
        self._scorer, self._window, self._clock = scorer, window, clock
        self._budget, self._lock = CropBudget(), threading.Lock()
        self._device = ThreadPoolExecutor(DEVICE_THREADS, thread_name_prefix="device")
        self._watches: dict[str, _Watch] = {}

    def __call__(self, frame: Frame) -> ScoredFrame:
        """Return `frame` scored; if the picture can't be read, the result holds the error."""
        if not frame.live or frame.still:
            return self._scorer(frame)
        with self._lock:
            if frame.source not in self._watches:
                tracker = Tracker(window=self._window, numbers=self._numbers[frame.source])
                watch = _Watch(self._scorer, self._budget, self._device, tracker, self._clock)
                self._watches[frame.source] = watch
        return self._watches[frame.source].score(frame)

    @property
    def waited_s(self) -> float:
        """Seconds since the oldest faces whose logits are missing were given to the device; 0 if there are none."""
        with self._lock:
            watches = list(self._watches.values())
        return max((watch.waited_s for watch in watches), default=0.0)


class _Watch:
    """Attention to one live source. Its frames pass `_look` one at a time, in order; the rest runs beside it."""

    def __init__(
        self,
        scorer: FrameScorer,
        budget: CropBudget,
        device: ThreadPoolExecutor,
        tracker: Tracker,
        clock: Callable[[], float] | None,
    ) -> None:
        self._scorer, self._budget, self._device = scorer, budget, device
        self._tracker, self._clock, self._choice = tracker, clock, scorer.engine.choice
        self._crops_per_face = scorer.engine.contract.pixels.crops
        self._turns, self._lock = Turns(), threading.Lock()
        self._pending: dict[Future[dict[int, ScoredFace]], float] = {}
        """Answers that are not there yet, and when their faces were given to the device."""
        self._index, self._taken, self._interval_s = -1, 0.0, USUAL_INTERVAL_S
        self._looked, self._rested_s, self._gaps = 0.0, 0.0, 0
        self._begin()

    def _begin(self) -> None:
        """Know nothing of the picture."""
        self._tracker.forget()
        self._shots, self._searches, self._stillness = Shots(), Searches(), Stillness()
        self._standings: dict[int, Standing] = {}
        self._faces: list[_Face] = []
        self._before: Glance | None = None

    @property
    def waited_s(self) -> float:
        """As `LiveScorer.waited_s`."""
        now = time.monotonic()
        with self._lock:
            return max((now - began for future, began in self._pending.items() if not future.done()), default=0.0)

    def score(self, frame: Frame) -> ScoredFrame:
        """Return `frame` scored."""
        began, engine = time.monotonic(), self._scorer.engine
        view = frame.load if isinstance(frame.load, View) else LoadedView(frame.load)
        try:
            glance = view.glance()
            with self._turns.turn(frame.turn):
                faces, chosen = self._look(frame, view, glance)
        except PictureError as error:
            return ScoredFrame(frame, None, (), began, engine.choice, engine.calibration, error=str(error))
        finally:
            self._turns.end(frame.turn)
        judged = self._judge(frame, view.pixels(), chosen) if chosen else {}
        with self._lock:
            return ScoredFrame(
                frame=frame,
                picture=None,
                faces=tuple(judged.get(face.track.number) or self._carried(face, frame, glance) for face in faces),
                began=began,
                choice=self._choice,
                calibration=engine.contract.calibration(self._choice.precision.value),
                view=view,
                size=glance.size,
                provenance=frame.provenance() if frame.provenance else None,
                tracks=tuple(replace(face.track, judged=deque(face.track.judged)) for face in faces),
            )

    def _look(self, frame: Frame, view: View, glance: Glance) -> tuple[list[_Face], list[_Face]]:
        """Return the frame's faces, and those of them to be judged."""
        with self._lock:
            for future in [future for future in self._pending if future.done()]:
                del self._pending[future]
                # A device's failure ends the run, even if it came too late for its own frame.
                future.result()
            if frame.gaps != self._gaps:
                self._gaps = frame.gaps
                self._begin()
            cells = Image.fromarray(glance.grey).reduce(CELL)
            if self._rests(frame, cells):
                return self._faces, []
            # Only videos have cuts.
            if frame.position_s is not None and self._shots.is_new(cells):
                self._begin()
        found = None if self._searches.due(frame.taken, self._interval_s) else self._followed(glance)
        is_search = found is None
        if found is None:
            found = find_faces(view.pixels(), self._scorer.moving_faces)
        now = (frame.taken if frame.position_s is None else frame.position_s) - self._rested_s
        with self._lock:
            tracks = self._tracker.update([_box(face, glance) for face in found], now)
            self._faces = [_Face(face, track) for face, track in zip(found, tracks, strict=True)]
            self._before = glance
            if is_search:
                self._searches.searched(frame.taken, [track.number for track in tracks])
            known = {track.number: Standing() for track in self._tracker.tracks}
            self._standings = {number: self._standings.get(number, new) for number, new in known.items()}
            return self._faces, self._chosen(frame, glance)

    def _rests(self, frame: Frame, cells: Image.Image) -> bool:
        """Return whether nothing is done for this frame. The tracks' time stands still meanwhile, so that none ends."""
        since_last_s = frame.taken - self._taken if self._index >= 0 else 0.0
        if self._index >= 0:
            interval_s = min(max(since_last_s / max(frame.index - self._index, 1), 1e-3), 2.0)
            self._interval_s += 0.1 * (interval_s - self._interval_s)
        self._index, self._taken = frame.index, frame.taken
        settled = not self._pending and all(standing.looks >= FRESH for standing in self._standings.values())
        rested = self._stillness.resting
        rests = self._stillness.update(np.asarray(cells), frame.taken, settled=settled)
        if rested and not rests:
            self._searches.unsettle()
        if rests and frame.taken - self._looked < RECHECK_S:
            self._rested_s += since_last_s
            return True
        self._looked = frame.taken
        return False

    def _followed(self, glance: Glance) -> Sequence[Found | None] | None:
        """Return the last frame's faces where they are now; None if they must be searched."""
        faces = [face.found for face in self._faces if face.found is not None]
        if len(faces) < len(self._faces) or self._before is None:
            return None
        moved = follow(self._before, glance, [face.box for face in faces])
        if moved is None:
            self._searches.unsettle()
            return None
        return [_Followed(box, face.detection) for box, face in zip(moved, faces, strict=True)]

    def _chosen(self, frame: Frame, glance: Glance) -> list[_Face]:
        """Return the faces to be judged in this frame."""
        faces, standings = [], []
        for face in self._faces:
            standing = self._standings[face.track.number]
            if too_small(_box(face.found, glance), self._scorer.limits) and face.found is not None:
                standing.looks = FRESH
            elif standing.wants(frame.taken, self._interval_s):
                faces.append(face)
                standings.append(standing)
        overdue = any(frame.taken - standing.looked >= OVERDUE_S for standing in standings)
        left_s = self._left_s(frame)
        crops = self._budget.room(left_s, self._scorer.engine.parallel, overdue=overdue)
        chosen = neediest(standings, -(-crops // self._crops_per_face), frame.taken)
        for index in chosen:
            standings[index].looks, standings[index].looked = standings[index].looks + 1, frame.taken
        return [faces[index] for index in chosen]

    def _left_s(self, frame: Frame) -> float:
        """Return the seconds for which the frame may still wait for its logits."""
        if self._clock is None:
            return FOREVER_S
        return max(0.0, frame.taken + WAIT_FRAMES * self._interval_s - self._clock())

    def _judge(self, frame: Frame, picture: Image.Image, chosen: list[_Face]) -> dict[int, ScoredFace]:
        """Judge `chosen` and return those that are ready in time, by track."""
        scorer, engine = self._scorer, self._scorer.engine
        prepared = [
            prepare_face(picture, face.found, engine.contract, scorer.limits, careful=scorer.careful) for face in chosen
        ]
        crops = all_crops(prepared)
        if crops is None:
            return self._note(frame, chosen, prepared, engine.no_answer, picture.size)
        self._crops_per_face = max(len(face.crops) for face in prepared if face.crops is not None)
        began, waves = time.monotonic(), -(-self._budget.started(len(crops)) // engine.parallel)

        def work() -> dict[int, ScoredFace]:
            try:
                answer = engine.answer(crops)
            finally:
                self._budget.finished(len(crops), time.monotonic() - began, waves)
            return self._note(frame, chosen, prepared, answer, picture.size)

        future = self._device.submit(work)
        with self._lock:
            self._pending[future] = began
        concurrent.futures.wait([future], self._left_s(frame))
        return future.result() if future.done() else {}

    def _note(
        self,
        frame: Frame,
        chosen: list[_Face],
        prepared: Sequence[PreparedFace],
        answer: Answer,
        size: tuple[int, int],
    ) -> dict[int, ScoredFace]:
        """Add an answer to its tracks, however late it is, and return the faces by track."""
        scored = score_faces(prepared, answer, size)
        with self._lock:
            if answer.choice != self._choice:
                # Never average the logits of two networks.
                for track in self._tracker.tracks:
                    track.judged.clear()
                self._choice = answer.choice
            for face, score in zip(chosen, scored, strict=True):
                if score.logit is not None:
                    self._tracker.judge(face.track, score.logit, score.distance, score.extremes)
                if (standing := self._standings.get(face.track.number)) is not None:
                    result = decide(score, answer.calibration, self._scorer.limits, track=face.track)
                    standing.judged, standing.reason = frame.taken, score.reason
                    standing.uncertain = (
                        Verdict.UNCERTAIN is result.verdict or result.verdict is not result.frame_verdict
                    )
        return {face.track.number: score for face, score in zip(chosen, scored, strict=True)}

    def _carried(self, face: _Face, frame: Frame, glance: Glance) -> ScoredFace:
        """Return a face that was not judged in this frame."""
        box, sure = _box(face.found, glance), None if face.found is None else face.found.detection
        if face.found is not None and (reason := too_small(box, self._scorer.limits)):
            return ScoredFace(box, sure, None, reason)
        standing = self._standings.get(face.track.number, Standing())
        if standing.judged is None:
            return ScoredFace(box, sure, None, Reason.NOT_YET)
        return ScoredFace(box, sure, None, standing.reason, carried_s=max(0.0, frame.taken - standing.judged))


def _box(face: Found | None, glance: Glance) -> Box:
    return (0.0, 0.0, float(glance.size[0]), float(glance.size[1])) if face is None else face.box
