"""Runs a million frames through the real decoder, face stage, pipeline and sinks, and checks that nothing grows.

    python -m benchmarks.studies.soak --frames 1000000 --face-model face_detection_full_range.tflite

The network is small, because what could grow lies around it. Memory, open files and threads after the first thousand
frames are compared with those at the end.
"""

import contextlib
import gc
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import psutil
import typer

from benchmarks.studies.small import write_small_bundle
from edge_runtime.command import run_command
from edge_runtime.detector import Detector
from edge_runtime.sinks import Sink
from edge_runtime.sinks.lines import CsvSink, JsonlSink
from edge_runtime.sinks.snapshots import SnapshotSink
from edge_runtime.sources import Frame, Gap, Source
from edge_runtime.sources.video import Video
from export.children.scratch import ScratchFolder
from train.data.catalog import SEED
from train.sample_faces import draw_face
from train.sample_faces.files import write_video

SETTLED = 1000
"""Frames after which memory should no longer grow."""

ALLOWED_MB = 5.0


class RepeatedVideo(Source):
    """A video that is opened and read again and again."""

    live, still = False, False

    def __init__(self, path: Path, frames: int) -> None:
        self.name, self._path, self._frames = str(path), path, frames

    def frames(self, stop: threading.Event) -> Iterator[Frame | Gap]:
        """Yield `frames` frames."""
        given = 0
        while given < self._frames and not stop.is_set():
            for item in Video(self._path).frames(stop):
                yield item
                given += 1
                if given == self._frames:
                    return


@dataclass(frozen=True)
class Footprint:
    """What a process holds: memory in MB, open files, threads."""

    memory_mb: float
    files: int
    threads: int

    @classmethod
    def now(cls) -> "Footprint":
        """Return this process's footprint."""
        gc.collect()
        process = psutil.Process()
        return cls(process.memory_info().rss / 1e6, process.num_fds(), threading.active_count())

    def __str__(self) -> str:
        return f"{self.memory_mb:.1f} MB, {self.files} files, {self.threads} threads"


def write_clip(path: Path, frames: int = 50) -> None:
    """Write a short video of a moving drawn face."""
    face = np.asarray(draw_face(SEED, 120))
    background = np.random.default_rng(SEED).integers(60, 120, (240, 320, 3), np.uint8)

    def frame(number: int) -> np.ndarray:
        picture = background.copy()
        picture[60:180, number : number + 120] = face
        return picture

    write_video(path, map(frame, range(frames)))


def soak(
    frames: Annotated[int, typer.Option(min=SETTLED + 1, help="Number of frames.")] = 1_000_000,
    face_model: Annotated[Path | None, typer.Option(help="BlazeFace full range (.tflite).")] = None,
) -> int:
    """Judge very many frames and check that nothing grows; exit code 1 if something does."""
    with ScratchFolder() as folder, contextlib.ExitStack() as stack:
        write_clip(folder / "clip.mp4")
        bundle = write_small_bundle(folder / "detector", face_model=face_model)
        detector = Detector(bundle, precision="int8", faces="auto" if face_model else "off")
        sinks: list[Sink] = [
            stack.enter_context(JsonlSink(folder / "out.jsonl", rotate_at=1 << 20)),
            stack.enter_context(CsvSink(folder / "out.csv", rotate_at=1 << 20)),
            stack.enter_context(SnapshotSink(folder / "kept", max_bytes=1 << 20)),
        ]
        states: list[Footprint] = []
        settled = Footprint.now()
        began, told, faces = time.monotonic(), time.monotonic(), 0
        try:
            results = detector.pipeline([RepeatedVideo(folder / "clip.mp4", frames)]).results()
            for number, judged in enumerate(results, 1):
                faces += len(judged.result.faces)
                for sink in sinks:
                    sink.write(judged)
                if number in (SETTLED, frames) or time.monotonic() - told > 60:
                    told = time.monotonic()
                    states.append(Footprint.now())
                    settled = states[-1] if number == SETTLED else settled
                    pace = f"{number / (told - began):.0f} FPS"
                    print(f"{number} frames, {faces} faces, {pace}: {states[-1]}", flush=True)
        except KeyboardInterrupt:
            # Report what there is, even if the run is stopped after hours.
            growth_code(settled, states[-1] if states else settled)
            raise
    return growth_code(settled, states[-1])


def growth_code(first: Footprint, last: Footprint) -> int:
    """Print how much a process grew; return exit code 1 if that is too much."""
    grown = last.memory_mb - first.memory_mb
    files, threads = last.files - first.files, last.threads - first.threads
    print(f"memory grew by {grown:.1f} MB, files by {files}, threads by {threads}")
    return int(grown >= ALLOWED_MB or files > 0 or threads > 0)


if __name__ == "__main__":
    run_command(soak, "python -m benchmarks.studies.soak")
