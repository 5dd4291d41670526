"""One frame judged: its faces found, cut out and scored by a few threads, then tracked and given verdicts in order."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_runtime.defaults import WINDOW
from edge_runtime.errors import PictureError
from edge_runtime.inference.engine import Choice, Engine
from edge_runtime.judging.results import FaceResult, FrameResult
from edge_runtime.judging.tracking import Track, Tracker
from edge_runtime.model.contract import DEMO_NOTICE, Calibration, ModelContract, Verdict
from edge_runtime.pixels.preprocess import Box, face_pixels
from edge_runtime.pixels.quality import DEFAULT_LIMITS, QualityLimits, too_poor, too_small
from edge_runtime.sources import Frame, Gap

BETWEEN = "between the thresholds"


class Found(Protocol):
    """A face as a face stage gives it: left, top, right, bottom in pixels, and how sure it is, in [0, 1]."""

    @property
    def box(self) -> Box:
        """Where it is."""

    @property
    def detection(self) -> float:
        """How sure the stage is."""


class FaceFinder(Protocol):
    """A face stage."""

    def detect(self, picture: Image.Image) -> Sequence[Found]:
        """Return the faces of an RGB picture, the surest first."""


@dataclass(frozen=True)
class ScoredFace:
    """A face with its logit (fake − real), or with the reason why it has none."""

    box: Box
    detection: float | None
    logit: float | None
    reason: str | None


@dataclass(frozen=True)
class ScoredFrame:
    """A frame after its picture was looked at.

    Attributes:
        frame: where it came from.
        picture: RGB; None where it could not be read.
        faces: the faces found.
        began: when work on it began, monotonic seconds.
        choice: what computed its logits.
        calibration: how these are read.
        error: why it could not be read, else None.
    """

    frame: Frame
    picture: Image.Image | None
    faces: tuple[ScoredFace, ...]
    began: float
    choice: Choice
    calibration: Calibration
    error: str | None = None


class FrameScorer:
    """Turns frames into scored frames; called by several threads at once.

    Args:
        engine: computes logits.
        still_faces, moving_faces: the face stage for pictures and for what moves; None takes the whole picture.
        limits: what a face must show.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        still_faces: FaceFinder | None = None,
        moving_faces: FaceFinder | None = None,
        limits: QualityLimits = DEFAULT_LIMITS,
    ) -> None:
        self.engine, self.limits = engine, limits
        self.still_faces, self.moving_faces = still_faces, moving_faces

    def __call__(self, frame: Frame) -> ScoredFrame:
        """Return `frame` scored; a picture that can't be read becomes its error."""
        began = time.monotonic()
        try:
            picture = frame.load()
        except PictureError as error:
            engine = self.engine
            return ScoredFrame(frame, None, (), began, engine.choice, engine.calibration, str(error))
        found = find_faces(picture, self.still_faces if frame.still else self.moving_faces)
        prepared = [prepare_face(picture, box, self.engine.contract, self.limits) for box, _ in found]
        crops = [pixels for pixels, _ in prepared if pixels is not None]
        logits, choice, calibration = self._logits(crops)
        values = iter(logits)
        whole = (0.0, 0.0, float(picture.width), float(picture.height))
        faces = tuple(
            ScoredFace(box or whole, detection, None if pixels is None else next(values), reason)
            for (box, detection), (pixels, reason) in zip(found, prepared, strict=True)
        )
        return ScoredFrame(frame, picture, faces, began, choice, calibration)

    def _logits(self, faces: list[NDArray[np.uint8]]) -> tuple[list[float], Choice, Calibration]:
        """Return fake − real of each face, uint8 [K, H, W, 3], averaged over its K crops; all computed together."""
        if not faces:
            return [], self.engine.choice, self.engine.calibration
        answer = self.engine.answer(np.concatenate(faces) if len(faces) > 1 else faces[0])
        differences = (answer.logits[:, 1] - answer.logits[:, 0]).reshape(len(faces), -1).mean(axis=1)
        return differences.tolist(), answer.choice, answer.calibration


def find_faces(picture: Image.Image, finder: FaceFinder | None) -> list[tuple[Box | None, float | None]]:
    """Return box and detection of each face; without a face stage the one face is the picture: None, None."""
    if finder is None:
        return [(None, None)]
    return [(face.box, face.detection) for face in finder.detect(picture)]


def prepare_face(
    picture: Image.Image, box: Box | None, contract: ModelContract, limits: QualityLimits
) -> tuple[NDArray[np.uint8] | None, str | None]:
    """Return the model's pixels of a face, or None and the reason why it can't be judged."""
    if box is not None and (reason := too_small(box, limits)):
        return None, reason
    pixels = face_pixels(picture, box, contract)
    reason = too_poor(pixels[0], limits)
    return (None, reason) if reason else (pixels, None)


class Verdicts:
    """Gives scored frames their verdicts; frames of one source must come in order."""

    def __init__(self, contract: ModelContract, *, window: int = WINDOW) -> None:
        self._version, self._window = contract.version, window
        self._notice = DEMO_NOTICE if contract.demo else None
        self._trackers: dict[str, Tracker] = {}
        self._choice: Choice | None = None

    def of_frame(self, scored: ScoredFrame) -> FrameResult:
        """Return what is said of a frame and its faces."""
        frame = scored.frame
        if scored.choice != self._choice:
            # Logits of another network are not to be averaged with this one's.
            for tracker in self._trackers.values():
                tracker.forget()
            self._choice = scored.choice
        faces = self._still(scored) if frame.still else self._tracked(scored)
        now = time.monotonic()
        width, height = scored.picture.size if scored.picture else (0, 0)
        return FrameResult(
            source=frame.source,
            frame=frame.index,
            time=frame.time,
            width=width,
            height=height,
            latency_ms=1e3 * (now - scored.began),
            age_ms=1e3 * (now - frame.taken),
            dropped=frame.dropped,
            device=scored.choice.device,
            precision=scored.choice.precision.value,
            model=self._version,
            faces=faces,
            error=scored.error,
            notice=self._notice,
        )

    def of_gap(self, gap: Gap) -> FrameResult:
        """Return what is said of a source that is lost or has ended."""
        if gap.source in self._trackers:
            self._trackers[gap.source].forget()
        return FrameResult(
            gap.source, 0, gap.time, gap.state, model=self._version, error=gap.error, notice=self._notice
        )

    def _still(self, scored: ScoredFrame) -> tuple[FaceResult, ...]:
        return tuple(face_result(face, scored.calibration, None, face.logit) for face in scored.faces)

    def _tracked(self, scored: ScoredFrame) -> tuple[FaceResult, ...]:
        tracker = self._trackers.setdefault(scored.frame.source, Tracker(window=self._window))
        tracks = tracker.update([face.box for face in scored.faces], moment(scored.frame))
        for face, track in zip(scored.faces, tracks, strict=True):
            if face.logit is not None:
                tracker.judge(track, face.logit)
        return tuple(
            face_result(face, scored.calibration, track, track.logit)
            for face, track in zip(scored.faces, tracks, strict=True)
        )


def moment(frame: Frame) -> float:
    """Return a frame's seconds among those of its source: by its number where the rate is known, else as taken.

    A video is read as fast as the machine can; by the clock, its verdicts would depend on the machine.
    """
    return frame.taken if frame.fps is None else frame.index / frame.fps


def face_result(face: ScoredFace, calibration: Calibration, track: Track | None, logit: float | None) -> FaceResult:
    """Return what is said of a face whose verdict is made from `logit`; uncertain where there is none."""
    box = (round(face.box[0]), round(face.box[1]), round(face.box[2]), round(face.box[3]))
    score = None if face.logit is None else calibration.score(face.logit)
    number = None if track is None else track.number
    if logit is None:
        return FaceResult(box, face.detection, number, score, Verdict.UNCERTAIN, face.reason)
    judged = calibration.score(logit)
    verdict = calibration.verdict(judged)
    reason = BETWEEN if verdict is Verdict.UNCERTAIN else None
    return FaceResult(box, face.detection, number, score, verdict, reason, judged)
