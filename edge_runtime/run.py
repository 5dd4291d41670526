"""A run from its first frame to its summary: results go to every sink, signals and systemd are heeded."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from edge_runtime.judging.results import SourceState
from edge_runtime.pipeline import Judged, Pipeline
from edge_runtime.sinks import Sink
from edge_runtime.systemd import Notifier, stopping_on_signals

STUCK_S = 60.0
"""Work on one frame that takes longer counts as hanging: systemd's watchdog is told nothing more."""


@dataclass
class Summary:
    """What a run came to.

    Attributes:
        frames, faces: judged.
        broken: frames of moving sources that could not be decoded.
        dropped: frames that were skipped because a newer one was there, by source.
        failed: inputs that could not be read.
        lost: results that sinks could not write.
        stopped: whether a signal ended the run.
        seconds: how long it took.
    """

    frames: int = 0
    faces: int = 0
    broken: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    failed: int = 0
    lost: int = 0
    stopped: bool = False
    seconds: float = 0.0

    def add(self, judged: Judged) -> None:
        """Count one result."""
        result = judged.result
        if judged.failed:
            self.failed += 1
        elif result.error is not None and result.state == SourceState.OK:
            self.broken += 1
        elif result.state == SourceState.OK:
            self.frames += 1
            self.faces += len(result.faces)
            if result.dropped:
                self.dropped[result.source] = result.dropped

    def text(self) -> str:
        """Return the closing line."""
        parts = [f"{self.frames} frames, {self.faces} faces in {self.seconds:.1f} s"]
        if self.seconds > 0 and self.frames:
            parts.append(f"{self.frames / self.seconds:.1f} FPS")
        if dropped := sum(self.dropped.values()):
            parts.append(f"{dropped} dropped for newer ones")
        if self.broken:
            parts.append(f"{self.broken} broken frames")
        if self.lost:
            parts.append(f"{self.lost} results could not be written (disk full?)")
        return ", ".join([*parts, f"{self.failed} failed"])


def run(pipeline: Pipeline, sinks: Sequence[Sink], notifier: Notifier | None = None, status: str = "") -> Summary:
    """Give every result of `pipeline` to every sink until its sources end or a signal comes."""
    notifier = notifier or Notifier()
    summary = Summary()
    began = time.monotonic()
    with stopping_on_signals(pipeline.stop):
        notifier.ready(status)
        for judged in pipeline.results(lambda: _sign_of_life(pipeline, notifier)):
            summary.add(judged)
            for sink in sinks:
                sink.write(judged)
            notifier.alive()
    notifier.stopping()
    summary.seconds = time.monotonic() - began
    summary.stopped = pipeline.stopped
    summary.lost = sum(sink.lost for sink in sinks)
    return summary


def _sign_of_life(pipeline: Pipeline, notifier: Notifier) -> None:
    if pipeline.busy_s < STUCK_S:
        notifier.alive()
