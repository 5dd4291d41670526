"""Runs a pipeline to its end: passes results to the sinks, stops on signals and reports to systemd."""

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from edge_runtime.judging.results import SourceState
from edge_runtime.judging.summary import FileVerdicts
from edge_runtime.model.bundle import Bundle
from edge_runtime.pipeline import Judged, Pipeline
from edge_runtime.sinks import Sink
from edge_runtime.systemd import Notifier, stopping_on_signals

log = logging.getLogger("edge_runtime")

STUCK_S = 60.0
"""After this long on one frame, or without an answer from the device, we stop pinging systemd's watchdog."""


class Observer(Protocol):
    """Sees every result before the sinks do, such as `edge_runtime.monitoring.monitor.Monitor`."""

    def observe(self, judged: Judged) -> Judged:
        """Return the result as the sinks shall have it."""

    def switch(self, bundle: Bundle) -> None:
        """Take note that another bundle judges from now on; called by another thread."""

    def close(self) -> None:
        """Take note that there are no more results."""


@dataclass
class Summary:
    """The counts of a run.

    Attributes:
        frames, faces: how many were judged.
        broken: video and camera frames that could not be decoded.
        dropped: frames skipped in favour of newer ones, by source.
        failed, lost: inputs that could not be read, and results that the sinks could not write.
        stopped: whether a signal ended the run.
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
        elif result.error is not None and result.state is SourceState.OK:
            self.broken += 1
        elif result.state is SourceState.OK:
            self.frames += 1
            self.faces += len(result.faces)
            if result.dropped:
                self.dropped[result.source] = result.dropped

    def text(self) -> str:
        """Return the summary as one line."""
        parts = [f"{counted(self.frames, 'frame')}, {counted(self.faces, 'face')} in {self.seconds:.1f} s"]
        if self.seconds > 0 and self.frames:
            parts.append(f"{self.frames / self.seconds:.1f} FPS")
        if dropped := sum(self.dropped.values()):
            parts.append(f"{dropped} dropped for newer ones")
        if self.broken:
            parts.append(counted(self.broken, "broken frame"))
        if self.lost:
            parts.append(f"{counted(self.lost, 'result')} could not be written (disk full?)")
        return ", ".join([*parts, f"{self.failed} failed"])


def counted(number: int, noun: str) -> str:
    """Return a number with its noun in the right form, such as "1 frame" or "2 frames"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def run(
    pipeline: Pipeline,
    sinks: Sequence[Sink],
    files: FileVerdicts,
    status: Callable[[], str],
    *,
    observers: Sequence[Observer] = (),
) -> Summary:
    """Pass every result of `pipeline` to `files` and every sink until its sources end or a signal arrives.

    The `status` is sent to systemd whenever it changes.
    """
    notifier, summary, began, stuck = Notifier(), Summary(), time.monotonic(), False

    def ping(busy_s: float = 0.0) -> None:
        nonlocal stuck
        was_stuck, stuck = stuck, max(busy_s, pipeline.waited_s) >= STUCK_S
        if not stuck:
            notifier.alive(status())
        elif not was_stuck:
            log.error(f"no answer for {STUCK_S:.0f} s: the device may be hanging; the watchdog gets no more pings")

    ticking = pipeline.results(lambda: ping(pipeline.busy_s))
    with stopping_on_signals(pipeline.stop), contextlib.closing(ticking) as results:
        notifier.ready(status())
        for judged in results:
            summary.add(judged)
            files.add(judged)
            for observer in observers:
                judged = observer.observe(judged)
            for sink in sinks:
                sink.write(judged)
            # Free the picture, perhaps hundreds of megabytes, before waiting for the next.
            del judged
            ping()
    notifier.stopping()
    for observer in observers:
        observer.close()
    for sink in sinks:
        sink.conclude(files)
    summary.seconds = time.monotonic() - began
    summary.stopped = pipeline.stopped
    summary.lost = sum(sink.losses.count for sink in sinks)
    return summary
