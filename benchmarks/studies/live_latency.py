"""Measures the age of live frames at their verdicts, and whether it grows.

    python -m benchmarks.studies.live_latency BUNDLE --seconds 600

A source yields frames at a fixed rate, as a camera does. No verdict should be older than one frame interval (a frame
that waits longer is replaced by a newer one) plus one inference, and frames should not get older over time.
"""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.studies.pipeline import textures
from edge_runtime.command import run_command
from edge_runtime.detector import Detector
from edge_runtime.sources import Frame, Source


class Paced(Source):
    """A live source with a fixed frame rate, for some seconds."""

    name, live, still = "paced", True, False

    def __init__(self, fps: float, seconds: float) -> None:
        self._interval_s, self._seconds = 1.0 / fps, seconds
        self._pictures = textures(8, 640)

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        """Yield a frame at each tick; missed ticks are skipped."""
        began = time.monotonic()
        number = 0
        while not stop.is_set() and (now := time.monotonic()) < began + self._seconds:
            picture = self._pictures[number % len(self._pictures)]
            yield Frame(self.name, number, picture.copy)
            number = int((now - began) / self._interval_s) + 1
            stop.wait(max(0.0, began + number * self._interval_s - time.monotonic()))


def one_inference_ms(detector: Detector, times: int = 50) -> float:
    """Return the 99th percentile of one inference alone, in milliseconds."""
    size = detector.bundle.contract.input_size
    pixels = np.zeros((1, size, size, 3), np.uint8)
    spans = []
    for _ in range(times):
        began = time.perf_counter()
        detector.engine.logits(pixels)
        spans.append(1e3 * (time.perf_counter() - began))
    return float(np.percentile(spans, 99))


def live_latency(
    bundle: Annotated[Path, typer.Argument(help="A bundle.")],
    fps: Annotated[float, typer.Option(min=0.1, help="Frame rate of the source, frames/s.")] = 25.0,
    seconds: Annotated[float, typer.Option(min=1.0, help="Duration in seconds.")] = 600.0,
) -> int:
    """Measure the age of live frames at their verdicts; exit code 1 if it is too high or grows."""
    detector = Detector(bundle, faces="off")
    inference_ms = one_inference_ms(detector)
    results = [judged.result for judged in detector.pipeline([Paced(fps, seconds)]).results()]
    ages = np.array([result.age_ms for result in results])
    tenth = max(1, len(ages) // 10)
    first, last = float(np.median(ages[:tenth])), float(np.median(ages[-tenth:]))
    limit, found = 1e3 / fps + inference_ms, float(np.percentile(ages, 99))
    print(f"{len(ages)} frames judged, {results[-1].dropped} dropped for newer ones at {fps:g} frames/s")
    print(f"age at the verdict: median {np.median(ages):.1f} ms, 99th percentile {found:.1f} ms")
    print(f"one frame interval and one inference (99th percentile, alone): {limit:.1f} ms")
    print(f"median of the first tenth {first:.1f} ms, of the last {last:.1f} ms")
    return int(found > limit or last > 1.5 * first + 1.0)


if __name__ == "__main__":
    run_command(live_latency, "python -m benchmarks.studies.live_latency")
