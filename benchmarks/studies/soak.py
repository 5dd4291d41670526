"""A million frames through the real decoder, face stage, pipeline and sinks: does anything grow?

    python -m benchmarks.studies.soak --frames 1000000 --face-model face_detection_full_range.tflite

The network is a small one, since what could grow lies around it. Memory, open files and threads after the first
thousand frames are compared with those at the end.
"""

import contextlib
import gc
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.studies.small import write_small_bundle
from edge_runtime.command import run_command
from edge_runtime.detector import Detector
from edge_runtime.sinks import Sink
from edge_runtime.sinks.lines import CsvSink, JsonlSink
from edge_runtime.sinks.snapshots import SnapshotSink
from edge_runtime.sources import Frame, Gap, Source
from edge_runtime.sources.opencv import cv2
from edge_runtime.sources.video import Video

SETTLED = 1000
"""Frames after which memory should have stopped growing."""

ALLOWED_MB = 5.0


class Again(Source):
    """A video that is opened and read again and again."""

    live, still = False, False

    def __init__(self, path: Path, frames: int) -> None:
        self.name, self._path, self._frames = str(path), path, frames

    def frames(self, stop: threading.Event) -> Iterator[Frame | Gap]:
        """Yield so many frames."""
        given = 0
        while given < self._frames and not stop.is_set():
            for item in Video(self._path).frames(stop):
                yield item
                given += 1
                if given == self._frames:
                    return


@dataclass(frozen=True)
class State:
    """What a process holds: memory in MB, open files, threads."""

    memory_mb: float
    files: int
    threads: int

    @classmethod
    def now(cls) -> "State":
        """Look at this process."""
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        files = len(list(Path("/proc/self/fd").iterdir()))
        return cls(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, files, threading.active_count())

    def __str__(self) -> str:
        return f"{self.memory_mb:.1f} MB, {self.files} files, {self.threads} threads"


def write_clip(path: Path, frames: int = 50) -> None:
    """Write a short video of a drawn face that moves."""
    from train.sample_faces import draw_face

    face = np.asarray(draw_face(42, 120))[:, :, ::-1]
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), 25.0, (320, 240))
    background = np.random.default_rng(42).integers(60, 120, (240, 320, 3), np.uint8)
    for number in range(frames):
        frame = background.copy()
        frame[60:180, number : number + 120] = face
        writer.write(frame)
    writer.release()


def soak(
    frames: Annotated[int, typer.Option(min=SETTLED + 1, help="How many frames.")] = 1_000_000,
    face_model: Annotated[Path | None, typer.Option(help="BlazeFace full range, as TFLite.")] = None,
) -> int:
    """Judge very many frames and tell whether anything grew."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        write_clip(folder / "clip.mp4")
        bundle = write_small_bundle(folder / "detector", face_model=face_model)
        detector = Detector(bundle, precision="int8", faces="auto" if face_model else "off")
        sinks: list[Sink] = [
            stack.enter_context(JsonlSink(folder / "out.jsonl", rotate_at=1 << 20)),
            stack.enter_context(CsvSink(folder / "out.csv", rotate_at=1 << 20)),
            stack.enter_context(SnapshotSink(folder / "kept", max_bytes=1 << 20)),
        ]
        states: list[State] = []
        settled = State.now()
        began, told, faces = time.monotonic(), time.monotonic(), 0
        try:
            for number, judged in enumerate(detector.pipeline([Again(folder / "clip.mp4", frames)]).results(), 1):
                faces += len(judged.result.faces)
                for sink in sinks:
                    sink.write(judged)
                if number in (SETTLED, frames) or time.monotonic() - told > 60:
                    told = time.monotonic()
                    states.append(State.now())
                    settled = states[-1] if number == SETTLED else settled
                    pace = f"{number / (told - began):.0f} FPS"
                    print(f"{number} frames, {faces} faces, {pace}: {states[-1]}", flush=True)
        except KeyboardInterrupt:
            # Hours of a run that is stopped have told something too.
            _verdict(settled, states[-1] if states else settled)
            raise
    return _verdict(settled, states[-1])


def _verdict(first: State, last: State) -> int:
    grown = last.memory_mb - first.memory_mb
    files, threads = last.files - first.files, last.threads - first.threads
    print(f"memory grew by {grown:.1f} MB, files by {files}, threads by {threads}")
    return int(grown >= ALLOWED_MB or files > 0 or threads > 0)


def main() -> None:
    """Start the command."""
    run_command(soak, "python -m benchmarks.studies.soak")


if __name__ == "__main__":
    main()
