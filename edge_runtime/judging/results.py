"""The result for a frame and for each face in it, and its JSON line."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.model.contract import Verdict
from edge_runtime.pixels.provenance import Provenance


class SourceState(str, Enum):
    """Whether a frame was judged, the source is lost for now, or it has ended."""

    OK = "ok"
    LOST = "lost"
    ENDED = "ended"


class Reason(str, Enum):
    """Why a verdict is uncertain; `edge_runtime.judging.decide.reason_text` says it in English."""

    BETWEEN_THRESHOLDS = "between_thresholds"
    TOO_SMALL = "too_small"
    TOO_DARK = "too_dark"
    TOO_BLURRED = "too_blurred"
    UNLIKE = "unlike"
    UNSTABLE = "unstable"
    NOT_YET = "not_yet"


@dataclass(frozen=True)
class FaceTraits:
    """What a judged face looks like to the network and to the camera.

    Attributes:
        position: the whitened position [k + 1] of its features, see `edge_runtime.model.reference`.
        size: shorter side in pixels of the picture.
        sharpness, blockiness: see `edge_runtime.pixels.quality`.
        light: mean of the green channel, in [0, 255].
    """

    position: NDArray[np.float32]
    size: float
    sharpness: float
    blockiness: float
    light: float


@dataclass(frozen=True)
class FaceResult:
    """One face in one frame.

    Attributes:
        box: left, top, right, bottom in whole pixels; right and bottom are exclusive.
        detection: the face detector's confidence in [0, 1]; None if no face detector ran.
        track: number of the face, constant over time within a source; None for still pictures.
        score: this frame's calibrated probability of fake, in [0, 1]; None if the face can't be judged.
        verdict: of the track, or of the still picture.
        reason: why the verdict is uncertain, in English; else None.
        track_score: the score of the track's window, which the verdict is made from; None as for `score`.
        reason_code: `reason` as an enum.
        traits: of the face in this frame; None if it can't be judged or the bundle has no reference statistics.
        frame_verdict: what this frame's score alone says; None as for `score`.
        carried_s: seconds since the track was last judged, if it was not judged in this frame of a live source; else
            None.
    """

    box: tuple[int, int, int, int]
    detection: float | None
    track: int | None
    score: float | None
    verdict: Verdict
    reason: str | None = None
    track_score: float | None = None
    reason_code: Reason | None = None
    traits: FaceTraits | None = field(default=None, compare=False, repr=False)
    frame_verdict: Verdict | None = None
    carried_s: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the face as it appears in a JSON line; `carried_s` is left out if it is None."""
        values = {
            "box": list(self.box),
            "detection": None if self.detection is None else round(self.detection, 4),
            "track": self.track,
            "score": None if self.score is None else round(self.score, 6),
            "verdict": self.verdict.value,
            "reason": self.reason,
        }
        return values if self.carried_s is None else {**values, "carried_s": round(self.carried_s, 3)}


@dataclass(frozen=True)
class FrameResult:
    """One frame of a source and the faces in it, or the notice that the source was lost or has ended.

    Attributes:
        source: the source's name; for a folder, the picture's path.
        frame: counts from 0 per source, dropped frames included.
        time: when the frame was taken or read, UTC.
        state: of the source.
        width, height: of the frame, in pixels; 0 if there is no frame.
        latency_ms: from the start of work on the frame to its verdict.
        age_ms: from when the frame was taken to its verdict.
        dropped: frames of this source skipped so far because a newer one arrived.
        device, precision, model: what judged the frame; `model` is the model's version.
        faces: the faces found.
        error: what went wrong with this frame or source, else None.
        notice: what must be shown with every verdict (a demonstration model), else None.
        provenance: what the file says about its origin; None for a camera.
        drift: state and reason of `edge_runtime.monitoring`, as plain values; None if nothing is monitored.
    """

    source: str
    frame: int
    time: datetime
    state: SourceState = SourceState.OK
    width: int = 0
    height: int = 0
    latency_ms: float = 0.0
    age_ms: float = 0.0
    dropped: int = 0
    device: str = ""
    precision: str = ""
    model: str = ""
    faces: tuple[FaceResult, ...] = ()
    error: str | None = None
    notice: str | None = None
    provenance: Provenance | None = None
    drift: Mapping[str, str] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the frame as it appears in a JSON line; the last three fields are left out if they are None."""
        values = {
            "source": self.source,
            "frame": self.frame,
            "time": iso_time(self.time),
            "state": self.state.value,
            "width": self.width,
            "height": self.height,
            "latency_ms": round(self.latency_ms, 2),
            "age_ms": round(self.age_ms, 2),
            "dropped": self.dropped,
            "device": self.device,
            "precision": self.precision,
            "model": self.model,
            "faces": [face.to_dict() for face in self.faces],
            "error": self.error,
        }
        if self.provenance is not None:
            values["provenance"] = self.provenance.to_dict()
        if self.notice is not None:
            values["notice"] = self.notice
        if self.drift is not None:
            values["drift"] = dict(self.drift)
        return values

    def to_json(self) -> str:
        """Return the JSON line without its line end; bytes of a path that are not UTF-8 are escaped."""
        text = json.dumps(self.to_dict(), ensure_ascii=False)
        return text.encode("utf-8", "backslashreplace").decode()


def iso_time(time: datetime) -> str:
    """Return an aware `time` in UTC, as ISO 8601 with milliseconds and a Z."""
    return time.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
