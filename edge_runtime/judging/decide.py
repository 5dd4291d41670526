"""From logits to scores, verdicts and reasons."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edge_runtime.judging.results import FaceResult, FaceTraits, Reason
from edge_runtime.judging.tracking import Track
from edge_runtime.model.contract import Calibration, Verdict
from edge_runtime.pixels.boxes import Box
from edge_runtime.pixels.quality import DEFAULT_LIMITS, QualityLimits

MEANING = {Verdict.REAL: "no traces of the generators it knows", Verdict.FAKE: "traces of a generator it knows"}
"""What a verdict says: a "real" face may come from a generator that the detector has never seen."""

SHORT_MEANING = {Verdict.REAL: "no known traces", Verdict.FAKE: "known traces"}
"""The same for displays with little room."""

UNCALIBRATED = Calibration()

STEADY = 4.0
"""Log-odds by which small changes may move a face: 1 in 100 clean faces moved more, all of 120 attacked ones (PGD,
1/255) did; their verdicts alone changed in only a quarter.
"""


@dataclass(frozen=True)
class ScoredFace:
    """A face with its logit (fake − real), or with the reason why it has none.

    Attributes:
        box: in pixels of the picture.
        detection: the face detector's confidence in [0, 1]; None if no face detector ran.
        logit: mean over the face's crops.
        reason: why the face can't be judged.
        distance: how unlike the faces that the network learned, mean over the crops; above 1 is beyond the limit.
        extremes: lowest and highest logit of the face and its slightly changed copies; None if there are no copies.
        traits: of a judged face, see FaceTraits.
        carried_s: see FaceResult.
    """

    box: Box
    detection: float | None
    logit: float | None
    reason: Reason | None
    distance: float = 0.0
    extremes: tuple[float, float] | None = None
    traits: FaceTraits | None = None
    carried_s: float | None = None


def fake_scores(logits: ArrayLike, calibration: Calibration = UNCALIBRATED) -> NDArray[np.float64]:
    """Return the probability of fake, in [0, 1], for each row of `logits` [N, 2]; `Calibration.score` does one."""
    values = np.asarray(logits, dtype=np.float64)
    scaled = (values[:, 1] - values[:, 0]) / calibration.temperature + calibration.bias
    return 1.0 / (1.0 + np.exp(-np.clip(scaled, -700.0, 700.0)))


def decide(
    face: ScoredFace, calibration: Calibration, limits: QualityLimits = DEFAULT_LIMITS, *, track: Track | None = None
) -> FaceResult:
    """Return the verdict on a face, made from its track's logits if it has a track, else from its own logit.

    Args:
        face: the face in this frame.
        calibration: temperature and thresholds of the network that computed the logit.
        limits: named in the reason why a face can't be judged.
        track: the same face over time, already updated with this frame.
    """
    seen = face if track is None else track
    score = None if seen.logit is None else calibration.score(seen.logit)
    verdict: Verdict = Verdict.UNCERTAIN
    # A track's logits expire: its face may have been judged, but too long ago.
    reason: Reason | None = face.reason or Reason.NOT_YET
    if score is not None:
        verdict, reason = calibration.verdict(score), None
        if seen.distance > 1.0:
            verdict, reason = Verdict.UNCERTAIN, Reason.UNLIKE
        elif verdict is Verdict.UNCERTAIN:
            reason = Reason.BETWEEN_THRESHOLDS
        elif seen.extremes is not None:
            moved = (seen.extremes[1] - seen.extremes[0]) / calibration.temperature > STEADY
            if moved or any(calibration.verdict(calibration.score(edge)) is not verdict for edge in seen.extremes):
                verdict, reason = Verdict.UNCERTAIN, Reason.UNSTABLE
    own = None if face.logit is None else calibration.score(face.logit)
    left, top, right, bottom = map(round, face.box)
    return FaceResult(
        box=(left, top, right, bottom),
        detection=face.detection,
        track=None if track is None else track.number,
        score=own,
        verdict=verdict,
        reason=reason_text(reason, limits) if reason else None,
        reason_code=reason,
        track_score=score,
        traits=face.traits,
        frame_verdict=None if own is None else calibration.verdict(own),
        carried_s=face.carried_s,
    )


def reason_text(reason: Reason, limits: QualityLimits = DEFAULT_LIMITS) -> str:
    """Return `reason` in English."""
    return {
        Reason.BETWEEN_THRESHOLDS: "between the thresholds",
        Reason.TOO_SMALL: f"face smaller than {limits.min_face} pixels",
        Reason.TOO_DARK: "too dark",
        Reason.TOO_BLURRED: "too blurred",
        Reason.UNLIKE: "unlike the faces it learned from",
        Reason.UNSTABLE: "small changes of the picture change the verdict",
        Reason.NOT_YET: "not judged yet",
    }[reason]
