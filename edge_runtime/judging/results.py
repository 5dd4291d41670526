"""What is said of a frame and of each face in it, and how a line of JSON says it."""

import json
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from edge_runtime.model.contract import Verdict

OK, LOST, ENDED = "ok", "lost", "ended"
"""States of a source: a frame was judged, its frames stay away, it is over."""


@dataclass(frozen=True)
class FaceResult:
    """One face in one frame.

    Attributes:
        box: left, top, right, bottom in whole pixels; right and bottom are exclusive.
        detection: how sure the face stage is that this is a face, in [0, 1]; None where no face stage looked.
        track: the same face over time has the same number, by source; None where pictures stand for themselves.
        score: this frame's calibrated probability of fake, in [0, 1]; None where the face can't be judged.
        verdict: of the track, or of the one picture.
        reason: why the verdict is uncertain, else None.
        track_score: the score of the track's window, which the verdict was made from; None as for `score`.
    """

    box: tuple[int, int, int, int]
    detection: float | None
    track: int | None
    score: float | None
    verdict: Verdict
    reason: str | None = None
    track_score: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return what a line of JSON says of the face."""
        return {
            "box": list(self.box),
            "detection": _rounded(self.detection, 4),
            "track": self.track,
            "score": _rounded(self.score, 6),
            "verdict": self.verdict.value,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class FrameResult:
    """One frame of a source and what was found in it, or that the source was lost or has ended.

    Attributes:
        source: the source's name; of a folder, the picture's path.
        frame: counts from 0 by source, dropped frames too.
        time: when the frame was taken or read, UTC.
        state: `ok`, `lost` or `ended`.
        width, height: of the frame, in pixels; 0 where there is no frame.
        latency_ms: from when work on the frame began to its verdict.
        age_ms: from when the frame was taken to its verdict.
        dropped: frames of this source that were skipped so far, because a newer one was there.
        device, precision, model: what judged, and the model's version.
        faces: the faces found.
        error: what went wrong with this frame or source, else None.
        notice: what must be said with every verdict (a demonstration model), else None.
    """

    source: str
    frame: int
    time: datetime
    state: str = OK
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

    def to_dict(self) -> dict[str, Any]:
        """Return what a line of JSON says of the frame; `notice` is there only where it must be said."""
        values = {
            "source": self.source,
            "frame": self.frame,
            "time": iso_time(self.time),
            "state": self.state,
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
        return values if self.notice is None else {**values, "notice": self.notice}

    def to_json(self) -> str:
        """Return the frame's line of JSON, without its line end; a path that is no Unicode is escaped."""
        text = json.dumps(self.to_dict(), ensure_ascii=False)
        return text.encode("utf-8", "backslashreplace").decode()


def iso_time(time: datetime) -> str:
    """Return an aware `time` in UTC, ISO 8601 with milliseconds and a Z."""
    return time.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
