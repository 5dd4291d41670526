"""Plain lines for a person: one per face."""

import os
import sys
from typing import TextIO

from edge_runtime.judging.decide import SHORT_MEANING
from edge_runtime.judging.rate import RollingRate
from edge_runtime.judging.results import FaceResult, FrameResult, SourceState
from edge_runtime.model.contract import DEMO_NOTICE
from edge_runtime.pipeline import Judged
from edge_runtime.printable import printable
from edge_runtime.sinks import Sink

MOST_KINDS = 20
"""Different failures of a source that are told before it recovers."""


class PlainLines(Sink):
    """One line per face on `out`.

    With `failures_only`, for a journal: of each source only the first failure of a kind, and the first frame after it.
    """

    def __init__(self, out: TextIO | None = None, *, failures_only: bool = False) -> None:
        self._out = sys.stdout if out is None else out
        super().__init__(getattr(self._out, "name", "the terminal"))
        self._failures_only = failures_only
        # What each failing source was said to suffer from.
        self._failing: dict[str, set[str]] = {}
        self._rate = RollingRate()

    def write(self, judged: Judged) -> None:
        """Print one frame."""
        result = judged.result
        failing = result.state is not SourceState.OK or result.error is not None
        said = self._failing.get(result.source, set())
        is_news = bool(said)
        if failing:
            text = f"{result.state.value} {result.error}"
            is_news = text not in said and len(said) < MOST_KINDS
            # A picture is judged once, so it can't recover.
            if is_news and not judged.still:
                self._failing[result.source] = said | {text}
        else:
            self._failing.pop(result.source, None)
        if result.state is SourceState.OK:
            self._rate.add()
        if self._failures_only and not is_news:
            return
        try:
            print("\n".join(frame_lines(result, self._rate.per_second)), file=self._out, flush=True)
            self.losses.over()
        except BrokenPipeError:
            raise
        except OSError as error:
            self.losses.add(error.strerror or str(error))

    def close(self) -> None:
        """Flush what was printed."""
        try:
            self._out.flush()
        except BrokenPipeError:
            raise
        except OSError:
            # Python would try to flush again at its exit, and print an error.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._out.fileno())
            self._out.flush()


def frame_lines(result: FrameResult, rate: float) -> list[str]:
    """Return the lines of one frame: source, verdict, probability of fake, milliseconds, frames per second."""
    tracked = any(face.track is not None for face in result.faces)
    where = printable(result.source) + (f" #{result.frame}" if result.frame or tracked else "")
    if result.state is not SourceState.OK or result.error is not None:
        state = "failed" if result.state is SourceState.OK else result.state.value
        return [f"{where}  {state}: {printable(result.error or '')}"]
    tail = f"{result.latency_ms:.0f} ms" + (f"  {rate:.1f} FPS" if rate else "")
    tail += f"  [{DEMO_NOTICE}]" if result.notice else ""
    if not tracked and result.provenance and (says := str(result.provenance)):
        tail += f"  [the file says {says}]"
    if not result.faces:
        return [f"{where}  no face  {tail}"]
    if tracked or len(result.faces) == 1:
        return [f"{where}  {face_text(face)}  {tail}" for face in result.faces]
    boxes = ["{},{} to {},{}".format(*face.box) for face in result.faces]
    numbered = enumerate(zip(boxes, result.faces, strict=True), 1)
    return [f"{where}  face {number} at {box}  {face_text(face)}  {tail}" for number, (box, face) in numbered]


def face_text(face: FaceResult) -> str:
    """Return the face's number, verdict, what it means or why it is uncertain, and probability of fake."""
    number = f"face {face.track}  " if face.track is not None else ""
    score = "" if face.track_score is None else f"  {face.track_score:.3f}"
    return f"{number}{face.verdict.value} ({face.reason or SHORT_MEANING[face.verdict]}){score}"
