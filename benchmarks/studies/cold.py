"""Measures a cold start: `edge-detect one.jpg` in a new process each time, with the compiled model cached.

python -m benchmarks.studies.cold BUNDLE
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image

from edge_runtime.command import run_command
from edge_runtime.errors import DeviceError
from export.children.scratch import ScratchFolder
from train.data.catalog import SEED
from train.sample_faces import draw_face

# The process reports its own peak: what the kernel tells a parent includes the parent's memory before exec.
PROGRAM = """
import atexit, sys
from benchmarks.measure.memory import peak_memory_mb
from edge_runtime.cli import main
atexit.register(lambda: print(peak_memory_mb(), file=sys.stderr))
main()
"""


@dataclass(frozen=True)
class Start:
    """One start: wall-clock seconds, CPU seconds and peak memory in MB."""

    seconds: float
    cpu_s: float
    memory_mb: float


def start_once(arguments: list[str], cache: Path) -> Start:
    """Run `edge-detect` with `arguments` once, with compiled models cached in `cache`.

    Raises:
        DeviceError: it failed; the message is its last error.
    """
    with tempfile.TemporaryFile("w+") as output:
        began, before = time.perf_counter(), os.times()
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *arguments],
            stdout=output,
            stderr=output,
            env={**os.environ, "CACHE_DIRECTORY": str(cache)},
            check=False,
        )
        seconds, after = time.perf_counter() - began, os.times()
        output.seek(0)
        lines = output.read().splitlines()
    if done.returncode:
        errors = [line for line in lines if line.startswith("error")] or lines[:-1] or ["no output"]
        raise DeviceError(f"edge-detect failed: {errors[-1].removeprefix('error: ')}")
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    return Start(seconds, cpu_s, float(lines[-1]))


def measure_cold(
    bundle: Annotated[Path, typer.Argument(help="A bundle.")],
    times: Annotated[int, typer.Option(min=1, help="Number of measured starts.")] = 9,
    faces: Annotated[str, typer.Option(help="The face stage, as for edge-detect.")] = "auto",
) -> int:
    """Measure how long one picture takes from a cold start, and its memory."""
    with ScratchFolder() as folder:
        Image.fromarray(draw_face(SEED, 400)).save(folder / "one.jpg")
        arguments = [str(folder / "one.jpg"), "--model", str(bundle), "--faces", faces]
        starts = [start_once(arguments, folder) for _ in range(times + 1)][1:]
    for what, values, unit in (
        ("wall-clock time", [start.seconds for start in starts], "s"),
        ("CPU time", [start.cpu_s for start in starts], "s"),
        ("peak memory", [start.memory_mb for start in starts], "MB"),
    ):
        print(f"{what}: {statistics.median(values):.2f} {unit} ({min(values):.2f} to {max(values):.2f})")
    return 0


if __name__ == "__main__":
    run_command(measure_cold, "python -m benchmarks.studies.cold")
