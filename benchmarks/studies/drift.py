"""Measures what the drift monitor notices, how often it is wrong, and what it costs.

    python -m benchmarks.studies.drift BUNDLE same/ --other second=second_source/ --other sdxl=multi/fake/sdxl/

The faces in `same/` come from the source that the bundle's reference statistics were measured on, but are other faces.
Days of them are drawn for the false alarms. Then each change comes after 300 of them: other folders, and faces of
`same/` saved as JPEG 40, defocused, and behind a dirty lens.
"""

import itertools
import random
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from PIL import Image, ImageFilter
from rich.console import Console
from rich.table import Table

from edge_runtime.command import run_command
from edge_runtime.detector import Detector
from edge_runtime.errors import UsageError
from edge_runtime.judging.results import FrameResult
from edge_runtime.model.bundle import Bundle
from edge_runtime.monitoring.alarm import DriftState
from edge_runtime.monitoring.checks import Check
from edge_runtime.monitoring.monitor import Monitor
from edge_runtime.paths import expand
from edge_runtime.pipeline import Judged
from edge_runtime.pixels.pictures import read_picture
from export.children.scratch import ScratchFolder
from train.data.degrade import jpeg

BEFORE, AFTER = 300, 200
"""Faces of the same source, then of the change."""

Change = Callable[[Image.Image], Image.Image]


def defocused(picture: Image.Image) -> Image.Image:
    """Blur by a disk of 2.5 pixels' radius at 256 pixels a side."""
    radius = 2.5 * min(picture.size) / 256
    half = int(np.ceil(radius))
    rows, columns = np.mgrid[-half : half + 1, -half : half + 1]
    disk = (rows**2 + columns**2 <= radius**2).astype(np.float32)
    blurred = cv2.filter2D(np.asarray(picture), -1, disk / disk.sum(), borderType=cv2.BORDER_REFLECT)
    return Image.fromarray(blurred)


def dirty(picture: Image.Image) -> Image.Image:
    """Lay nine smears over the picture, at the same places each time, as on a lens."""
    rng, (width, height) = np.random.default_rng(3), picture.size
    rows, columns = np.mgrid[:height, :width]
    veil = np.zeros((height, width))
    for _ in range(9):
        x, y, size = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0.08, 0.2) * width
        smear = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * size**2))
        veil = np.maximum(veil, rng.uniform(0.4, 0.8) * smear)
    hazy = np.asarray(picture.filter(ImageFilter.GaussianBlur(4)), float) * 0.7 + 50
    mixed = np.asarray(picture) * (1 - veil[..., None]) + hazy * veil[..., None]
    return Image.fromarray(mixed.clip(0, 255).astype(np.uint8))


CHANGES: dict[str, Change] = {
    "JPEG 40": lambda picture: jpeg(picture, 40),
    "defocused camera": defocused,
    "dirty lens": dirty,
}


def judge(detector: Detector, folder: Path, most: int, change: Change | None = None) -> list[FrameResult]:
    """Judge up to `most` pictures below `folder`, spread evenly, as whole faces."""
    paths = sorted(path for path in expand(folder).rglob("*") if path.is_file())
    if not paths:
        raise UsageError(f"{folder}: holds no pictures; give a folder of faces")
    chosen = [paths[i] for i in np.linspace(0, len(paths) - 1, min(most, len(paths))).astype(int)]
    return [detector.detect(change(read_picture(path)) if change else read_picture(path)) for path in chosen]


def states(bundle: Bundle, results: Sequence[FrameResult], folder: Path) -> tuple[list[DriftState], list[Check]]:
    """Return a new monitor's state after each result, and its last checks."""
    monitor, found = Monitor(bundle, folder), []
    for result in results:
        monitor.observe(Judged(result, still=True))
        found.append(monitor.alarm.state)
    return found, monitor.checks


def false_alarms(found: Sequence[DriftState]) -> int:
    """Count how often a state rose to `watch` or `drift`."""
    alarming = [state in (DriftState.WATCH, DriftState.DRIFT) for state in found]
    return sum(now and not before for before, now in itertools.pairwise(alarming))


def noticed(found: Sequence[DriftState], *wanted: DriftState) -> int | None:
    """Return after how many faces the state was one of `wanted`."""
    return next((count for count, state in enumerate(found, 1) if state in wanted), None)


def cost(bundle: Bundle, results: Sequence[FrameResult], folder: Path) -> tuple[float, float]:
    """Return the core milliseconds per face, and the MB of Python's and NumPy's memory, of a monitor."""
    began = time.process_time()
    states(bundle, results, folder / "time")
    core_ms = (time.process_time() - began) / len(results) * 1e3
    tracemalloc.start()
    states(bundle, results, folder / "memory")
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    return core_ms, peak


def drift(
    bundle: Annotated[Path, typer.Argument(help="A bundle with reference statistics.")],
    same: Annotated[Path, typer.Argument(help="Other faces of the source of the reference.")],
    other: Annotated[list[str] | None, typer.Option(help="Another source, as NAME=FOLDER; repeatable.")] = None,
    days: Annotated[int, typer.Option(min=1, help="Simulated days.")] = 30,
    per_day: Annotated[int, typer.Option(min=50, help="Faces a day.")] = 200,
    runs: Annotated[int, typer.Option(min=1, help="Runs, each with other draws.")] = 5,
) -> int:
    """Measure false alarms, faces until a change is noticed, and cost."""
    detector = Detector(bundle, faces="off")
    began, usual = time.process_time(), judge(detector, same, 1000)
    frame_ms = (time.process_time() - began) / len(usual) * 1e3
    changed = {name: judge(detector, same, 500, change) for name, change in CHANGES.items()}
    for text in other or []:
        name, _, folder = text.partition("=")
        changed[name] = judge(detector, Path(folder), 500)
    table = Table(title=f"noticed after how many faces, {runs} runs", title_justify="left")
    for head in ("change", "watch or drift", "drift", "strongest checks"):
        table.add_column(head)
    with ScratchFolder() as scratch:
        counts = []
        for run in range(runs):
            rng = random.Random(run)
            drawn = [result for _ in range(days) for result in rng.sample(usual, min(per_day, len(usual)))]
            counts.append(false_alarms(states(detector.bundle, drawn, scratch / f"same{run}")[0]))
        for name, results in changed.items():
            first: list[int | None] = []
            sure: list[int | None] = []
            for run in range(runs):
                rng = random.Random(run)
                drawn = [*rng.sample(usual, BEFORE), *rng.sample(results, min(AFTER, len(results)))]
                found, checks = states(detector.bundle, drawn, scratch / f"{len(first)}{name.replace('/', '-')}")
                first.append(noticed(found[BEFORE:], DriftState.WATCH, DriftState.DRIFT))
                sure.append(noticed(found[BEFORE:], DriftState.DRIFT))
            strongest = ", ".join(f"{check.name} {check.level:.1f}" for check in checks[:3])
            table.add_row(name, *(", ".join(map(str, part)) for part in (first, sure)), strongest)
        core_ms, memory_mb = cost(detector.bundle, usual, scratch)
    print(f"false alarms in {days} days of {per_day} faces: {', '.join(map(str, counts))} ({runs} runs)")
    Console(highlight=False, width=130).print(table)
    print(f"cost: {core_ms:.3f} ms of core time a face, {core_ms / frame_ms:.2%} of a frame's {frame_ms:.1f} ms")
    print(f"memory: at most {memory_mb:.1f} MB")
    return 0


if __name__ == "__main__":
    run_command(drift, "python -m benchmarks.studies.drift")
