"""A second detector beside the first: a line for each face about which they disagree."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_runtime.errors import EdgeError
from edge_runtime.judging.results import FaceResult, iso_time
from edge_runtime.pipeline import Judged
from edge_runtime.review.selection import KeptFor
from edge_runtime.review.sequential import is_telling
from edge_runtime.review.shadow import Compared, Shadow
from edge_runtime.sinks.lines import LineFile
from edge_runtime.sinks.review import ReviewSink

log = logging.getLogger("edge_runtime")

DISAGREEMENTS = "disagreements.jsonl"
"""The default file in the state folder."""

PER_TRACK = 5
"""Frames of one track that are compared. After a disagreement no more are: one person counts once."""

ROTATE_AT = 20 << 20
"""Bytes at which a new file of disagreements is started."""


@dataclass
class Counts:
    """How many faces were compared, and in how many the verdicts differ or tell who is right."""

    compared: int = 0
    differ: int = 0
    telling: int = 0


class ShadowSink(LineFile):
    """Offers frames to a second detector and appends a JSON line for each disagreement; its errors never end the run.

    Args:
        path: of the lines.
        shadow: the second detector.
        review: keeps the faces that tell who is right, if given.
    """

    def __init__(self, path: Path, shadow: Shadow, review: ReviewSink | None = None) -> None:
        super().__init__(path, begins='{"shadow":', rotate_at=ROTATE_AT)
        self._place, self._shadow, self._review = path, shadow, review
        self._tracks: dict[tuple[str, int], int] = {}
        self.counts, self.failure, self._warned = Counts(), "", False

    def write(self, judged: Judged) -> None:
        """Note what was compared meanwhile, and offer the frame's faces."""
        self._take()
        if judged.result.model == self._shadow.engine.contract.version and not self._warned:
            self._warned = True
            log.warning(
                f"--shadow: both detectors have version {judged.result.model}, so compare-detectors can't use "
                "the disagreements; give export-openvino another --version"
            )
        scored = judged.scored
        if self.failure or scored is None:
            return
        faces = tuple(
            index
            for index, face in enumerate(judged.result.faces)
            if face.score is not None and self._tracks.get((judged.result.source, face.track or 0), 0) < PER_TRACK
        )
        if faces and self._shadow.offer(scored, judged.result, faces):
            for index in faces:
                self._count(judged.result.source, judged.result.faces[index], 1)

    def _count(self, source: str, face: FaceResult, frames: int) -> None:
        if face.track is not None:
            if len(self._tracks) > 10_000:
                self._tracks.clear()
            self._tracks[source, face.track] = self._tracks.get((source, face.track), 0) + frames

    def _take(self) -> None:
        try:
            found = [] if self.failure else self._shadow.take()
        except EdgeError as error:
            self.failure = str(error)
            log.warning(f"the shadow detector stopped: {error}")
            return
        for compared in found:
            for index, old, new in compared.faces:
                self.counts.compared += 1
                if old.verdict is not new.verdict:
                    self._note(compared, index, old, new)

    def _note(self, compared: Compared, index: int, old: FaceResult, new: FaceResult) -> None:
        result, choice = compared.result, self._shadow.engine.choice
        face = result.faces[index]
        telling = is_telling(old.verdict, new.verdict)
        self.counts.differ += 1
        self.counts.telling += telling
        self._count(result.source, face, PER_TRACK)
        kept, picture = None, compared.scored.shown()
        if telling and self._review is not None and picture is not None:
            kept = self._review.keep(picture, result, face, KeptFor.SHADOW)
        line = {
            "shadow": self._shadow.engine.contract.version,
            "source": result.source,
            "time": iso_time(result.time),
            "frame": result.frame,
            "track": face.track,
            "box": list(face.box),
            "old": _said(result.model, result.precision, old),
            "new": _said(self._shadow.engine.contract.version, choice.precision.value, new),
            "telling": telling,
            "picture": kept,
        }
        self.append(json.dumps(line, ensure_ascii=False))

    def close(self) -> None:
        """Finish the frame in work and the file."""
        self._shadow.close()
        self._take()
        super().close()

    def text(self) -> str:
        """Return what was compared, in one line."""
        counts, version = self.counts, self._shadow.engine.contract.version
        if self.failure:
            return f"shadow {version} stopped: {self.failure}"
        return (
            f"shadow {version}: {counts.compared} faces compared, {counts.differ} disagreements, {counts.telling} of "
            f"them tell who is right ({self._place})"
        )


def _said(model: str, precision: str, face: FaceResult) -> dict[str, Any]:
    score = None if face.score is None else round(face.score, 6)
    return {"model": model, "precision": precision, "score": score, "verdict": face.verdict.value}
