"""Judges frames: worker threads find, crop and score the faces; verdicts are then given in frame order."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_runtime.defaults import WINDOW
from edge_runtime.errors import PictureError
from edge_runtime.inference.engine import Answer, Choice, Engine
from edge_runtime.judging.decide import ScoredFace, decide
from edge_runtime.judging.results import FaceResult, FaceTraits, FrameResult, Reason
from edge_runtime.judging.tracking import Shots, Track, Tracker, TrackNumbers
from edge_runtime.model.contract import DEMO_NOTICE, Calibration, ModelContract
from edge_runtime.pixels.boxes import Box
from edge_runtime.pixels.preprocess import changed_copies, face_pixels
from edge_runtime.pixels.provenance import Provenance
from edge_runtime.pixels.quality import (
    DEFAULT_LIMITS,
    QualityLimits,
    mean_light,
    measured_quality,
    shorter_side,
    too_poor,
    too_small,
)
from edge_runtime.sources import Frame, Gap
from edge_runtime.sources.view import View


class Found(Protocol):
    """A face as a face detector reports it."""

    @property
    def box(self) -> Box:
        """Left, top, right, bottom in pixels."""

    @property
    def detection(self) -> float:
        """Confidence in [0, 1]."""


class FaceFinder(Protocol):
    """A face detector."""

    def detect(self, picture: Image.Image) -> Sequence[Found]:
        """Return the faces of an RGB picture, most confident first."""


@dataclass(frozen=True)
class PreparedFace:
    """A face cut out of its picture, ready for the network.

    Attributes:
        box: in pixels; None if the whole picture is taken as the face.
        detection: the face detector's confidence in [0, 1]; None if no face detector ran.
        crops: the model's pixels, uint8 [K, H, W, 3]; None if the face can't be judged. Behind them come those of
            the copies, [(1 + copies) · K, H, W, 3] in all.
        reason: why it can't be judged.
        copies: how many slightly changed copies are judged too.
        quality: sharpness, blockiness and size; None if the face can't be judged.
        light: mean of the green channel of the model's pixels, in [0, 255].
    """

    box: Box | None
    detection: float | None
    crops: NDArray[np.uint8] | None
    reason: Reason | None = None
    copies: int = 0
    quality: tuple[float, float, float] | None = None
    light: float = 0.0


@dataclass(frozen=True)
class ScoredFrame:
    """A frame whose faces have logits but no verdicts yet.

    Attributes:
        frame: where it came from.
        picture: RGB; None if it could not be read, or is in `view`.
        faces: the faces found.
        began: when work on it began, in monotonic seconds.
        choice: the device and precision that computed the logits.
        calibration: temperature and thresholds for these logits.
        error: why the picture could not be read, else None.
        provenance: what its file says about its origin; None for a camera.
        view, size: the picture of a live frame and its width and height; None for others.
        tracks: of each face, as they were at this frame, if they are known already.
    """

    frame: Frame
    picture: Image.Image | None
    faces: tuple[ScoredFace, ...]
    began: float
    choice: Choice
    calibration: Calibration
    error: str | None = None
    provenance: Provenance | None = None
    view: View | None = None
    size: tuple[int, int] | None = None
    tracks: tuple[Track, ...] | None = None

    def shown(self) -> Image.Image | None:
        """Return the picture as RGB; None if it can't be read."""
        if self.view is None:
            return self.picture
        try:
            return self.view()
        except PictureError:
            return None


_measuring = threading.Lock()
"""NumPy releases the interpreter's lock in each of its many short steps. Threads that measure at once take it from each
other, which costs them more time than the measuring itself."""


def find_faces(picture: Image.Image, finder: FaceFinder | None) -> Sequence[Found | None]:
    """Return the faces of `picture`, most confident first; `[None]`, the whole picture, without a `finder`."""
    return [None] if finder is None else finder.detect(picture)


def prepare_face(
    picture: Image.Image,
    face: Found | None,
    contract: ModelContract,
    limits: QualityLimits,
    *,
    careful: bool = False,
) -> PreparedFace:
    """Cut `face` (None: the whole picture) out of `picture`, unless it is too small, too dark or too blurred.

    `careful` adds slightly changed copies.
    """
    box, detection = (None, None) if face is None else (face.box, face.detection)
    if box is not None and (reason := too_small(box, limits)):
        return PreparedFace(box, detection, None, reason)
    crops = face_pixels(picture, box, contract)
    with _measuring:
        reason = too_poor(crops[0], limits)
        if reason:
            return PreparedFace(box, detection, None, reason)
        quality = measured_quality(crops[0], shorter_side(picture.size, box))
        light = mean_light(crops[0])
    copies = changed_copies(crops) if careful else []
    pixels = np.concatenate([crops, *copies]) if copies else crops
    return PreparedFace(box, detection, pixels, copies=len(copies), quality=quality, light=light)


def all_crops(faces: Sequence[PreparedFace]) -> NDArray[np.uint8] | None:
    """Return the crops of all `faces` as one batch, uint8 [N, H, W, 3]; None if no face can be judged."""
    crops = [face.crops for face in faces if face.crops is not None]
    return (np.concatenate(crops) if len(crops) > 1 else crops[0]) if crops else None


def split_rows(faces: Sequence[PreparedFace], rows: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Return for each face its part of the network's answer to `all_crops`; no rows if it was not judged."""
    counts = [0 if face.crops is None else len(face.crops) for face in faces]
    return [rows[end - count : end] for count, end in zip(counts, np.cumsum(counts), strict=True)]


def score_faces(faces: Sequence[PreparedFace], answer: Answer, size: tuple[int, int]) -> tuple[ScoredFace, ...]:
    """Return `faces`, cut out of one picture of `size` (width, height), with the `answer` to `all_crops(faces)`."""
    whole = (0.0, 0.0, float(size[0]), float(size[1]))
    scored = []
    columns = (answer.logits, answer.distances, answer.positions)
    for face, rows, distances, positions in zip(faces, *(split_rows(faces, part) for part in columns), strict=True):
        margins = (rows[:, 1] - rows[:, 0]).reshape(1 + face.copies, -1).mean(axis=1) if len(rows) else np.empty(0)
        logits = [answer.calibration.adjusted(float(margin), face.quality) for margin in margins if face.quality]
        own = distances[: len(distances) // (1 + face.copies)]
        traits = None
        if face.quality and len(positions):
            sharpness, blockiness, side = face.quality
            position = positions[: len(own)].mean(axis=0)
            traits = FaceTraits(position, size=side, sharpness=sharpness, blockiness=blockiness, light=face.light)
        scored.append(
            ScoredFace(
                box=face.box or whole,
                detection=face.detection,
                logit=logits[0] if logits else None,
                reason=face.reason,
                distance=float(own.mean()) if len(own) else 0.0,
                extremes=(min(logits), max(logits)) if face.copies else None,
                traits=traits,
            )
        )
    return tuple(scored)


class FrameScorer:
    """Turns frames into scored frames; several threads may call it at once.

    Args:
        engine: computes logits.
        still_faces, moving_faces: the face detector for still pictures and for video; None takes the whole picture as
            the face.
        limits: faces below these are not judged.
        careful: also judge slightly changed copies of each face.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        still_faces: FaceFinder | None = None,
        moving_faces: FaceFinder | None = None,
        limits: QualityLimits = DEFAULT_LIMITS,
        careful: bool = False,
    ) -> None:
        self.engine, self.limits, self.careful = engine, limits, careful
        self.still_faces, self.moving_faces = still_faces, moving_faces

    def __call__(self, frame: Frame) -> ScoredFrame:
        """Return `frame` scored; if the picture can't be read, the result holds the error."""
        began, engine = time.monotonic(), self.engine
        try:
            picture = frame.load()
        except PictureError as error:
            return ScoredFrame(
                frame=frame,
                picture=None,
                faces=(),
                began=began,
                choice=engine.choice,
                calibration=engine.calibration,
                error=str(error),
                provenance=Provenance() if frame.provenance else None,
            )
        found = find_faces(picture, self.still_faces if frame.still else self.moving_faces)
        faces = [prepare_face(picture, face, engine.contract, self.limits, careful=self.careful) for face in found]
        crops = all_crops(faces)
        answer = engine.no_answer if crops is None else engine.answer(crops)
        return ScoredFrame(
            frame=frame,
            picture=picture,
            faces=score_faces(faces, answer, picture.size),
            began=began,
            choice=answer.choice,
            calibration=answer.calibration,
            provenance=frame.provenance() if frame.provenance else None,
        )


class Verdicts:
    """Gives scored frames their verdicts; the frames of one source must come in order.

    Args:
        contract: of the model that scored the frames.
        window: how many of a face's last judged frames its verdict uses.
        limits: named in the reason why a face can't be judged.
        numbers: of the tracks; None begins with 1.
    """

    def __init__(
        self,
        contract: ModelContract,
        *,
        window: int = WINDOW,
        limits: QualityLimits = DEFAULT_LIMITS,
        numbers: TrackNumbers | None = None,
    ) -> None:
        self._version, self._window, self._limits = contract.version, window, limits
        self._notice = DEMO_NOTICE if contract.demo else None
        self._numbers = TrackNumbers() if numbers is None else numbers
        self._trackers: dict[str, Tracker] = {}
        self._shots: dict[str, Shots] = {}
        self._choice: Choice | None = None

    def of_frame(self, scored: ScoredFrame) -> FrameResult:
        """Return the result for a frame and its faces."""
        frame = scored.frame
        if scored.choice != self._choice:
            # Never average the logits of two networks.
            for tracker in self._trackers.values():
                tracker.forget()
            self._choice = scored.choice
        if frame.still:
            faces = tuple(decide(face, scored.calibration, self._limits) for face in scored.faces)
        else:
            faces = self._tracked(scored)
        now = time.monotonic()
        width, height = scored.size or (scored.picture.size if scored.picture else (0, 0))
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
            provenance=scored.provenance,
        )

    def of_gap(self, gap: Gap) -> FrameResult:
        """Return the result for a source that is lost or has ended."""
        if gap.source in self._trackers:
            self._trackers[gap.source].forget()
        return FrameResult(
            source=gap.source,
            frame=0,
            time=gap.time,
            state=gap.state,
            model=self._version,
            error=gap.error,
            notice=self._notice,
        )

    def _tracked(self, scored: ScoredFrame) -> tuple[FaceResult, ...]:
        if scored.tracks is not None:
            return self._decided(scored, scored.tracks)
        frame = scored.frame
        new = Tracker(window=self._window, numbers=self._numbers[frame.source])
        tracker = self._trackers.setdefault(frame.source, new)
        # Another person may appear in the same place. A camera makes no cuts, but its light may be switched on.
        shots = self._shots.setdefault(frame.source, Shots())
        if frame.position_s is not None and scored.picture is not None and shots.is_new(scored.picture):
            tracker.forget()
        # A video is read as fast as the machine can. Its own time keeps verdicts independent of the machine.
        seconds = frame.taken if frame.position_s is None else frame.position_s
        tracks = tracker.update([face.box for face in scored.faces], seconds)
        for face, track in zip(scored.faces, tracks, strict=True):
            if face.logit is not None:
                tracker.judge(track, face.logit, face.distance, face.extremes)
        return self._decided(scored, tracks)

    def _decided(self, scored: ScoredFrame, tracks: Sequence[Track]) -> tuple[FaceResult, ...]:
        return tuple(
            decide(face, scored.calibration, self._limits, track=track)
            for face, track in zip(scored.faces, tracks, strict=True)
        )
