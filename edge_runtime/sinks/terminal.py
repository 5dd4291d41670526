"""What a person sees: plain lines, one a face."""

import os
import sys
from types import TracebackType
from typing import TextIO

from edge_runtime.judging.rate import RollingRate
from edge_runtime.judging.results import FaceResult, FrameResult, SourceState
from edge_runtime.model.contract import DEMO_NOTICE
from edge_runtime.pipeline import Judged
from edge_runtime.sinks.disk import Losses


class PlainLines:
    """One line a face on `out`, with the rolling FPS.

    With `failures_only`, as a journal wants it, only what fails, and the first frame of a source that is there again.
    """

    def __init__(self, out: TextIO | None = None, *, failures_only: bool = False) -> None:
        self._out = sys.stdout if out is None else out
        self._losses = Losses(getattr(self._out, "name", "the terminal"))
        self._failures_only = failures_only
        self._failing: set[str] = set()
        self._rate = RollingRate()

    @property
    def lost(self) -> int:
        """Lines that could not be written."""
        return self._losses.count

    def write(self, judged: Judged) -> None:
        """Print one frame."""
        result = judged.result
        if result.state == SourceState.OK:
            self._rate.add()
        if self._failures_only and not self._is_news(judged):
            return
        for line in frame_lines(result, self._rate.per_second):
            self._print(line)

    def _print(self, line: str) -> None:
        try:
            print(line, file=self._out, flush=True)
            self._losses.over()
        except BrokenPipeError:
            raise
        except OSError as error:
            self._losses.add(error.strerror or str(error))

    def _is_news(self, judged: Judged) -> bool:
        result = judged.result
        failing = result.state != SourceState.OK or result.error is not None
        if judged.still:
            return failing
        before = result.source in self._failing
        (self._failing.add if failing else self._failing.discard)(result.source)
        return failing or before

    def __enter__(self) -> "PlainLines":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._out.flush()
        except BrokenPipeError:
            raise
        except OSError:
            # What waits to be written would be tried, and told of, once more when Python ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._out.fileno())
            self._out.flush()


def frame_lines(result: FrameResult, rate: float) -> list[str]:
    """Return the lines of one frame: source, verdict, probability, milliseconds, FPS."""
    where = printable(result.source) + (f" #{result.frame}" if result.frame or _in_motion(result) else "")
    if result.state != SourceState.OK or result.error is not None:
        state = "failed" if result.state is SourceState.OK else result.state.value
        return [f"{where}  {state}: {printable(result.error or '')}"]
    tail = f"{result.latency_ms:.0f} ms" + (f"  {rate:.1f} FPS" if rate else "")
    demo = f"  [{DEMO_NOTICE}]" if result.notice else ""
    if not result.faces:
        return [f"{where}  no face  {tail}{demo}"]
    return [f"{where}  {face_text(face)}  {tail}{demo}" for face in result.faces]


def _in_motion(result: FrameResult) -> bool:
    return any(face.track is not None for face in result.faces)


def face_text(face: FaceResult) -> str:
    """Return verdict, probability of fake, and why it is uncertain."""
    name = f"face {face.track}  " if face.track is not None else ""
    score = "" if face.track_score is None else f"  {face.track_score:.3f}"
    reason = f" ({face.reason})" if face.reason else ""
    return f"{name}{face.verdict.value}{reason}{score}"


def printable(text: str) -> str:
    """Return `text` without what a terminal would obey, and without what can't be encoded."""
    clean = text.encode("utf-8", "backslashreplace").decode()
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in clean)
