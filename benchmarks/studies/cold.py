"""From the command to its verdict: `edge-detect one.jpg` in a new process each time, the compiled model cached.

python -m benchmarks.studies.cold BUNDLE
"""

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from edge_runtime.command import run_command
from edge_runtime.errors import DeviceError

# A process's own largest memory: what the kernel tells its parent counts the parent's, too, from before exec.
PROGRAM = """
import atexit, pathlib, sys
atexit.register(lambda: sys.stderr.write(pathlib.Path("/proc/self/status").read_text()))
from edge_runtime.cli import main
main()
"""
COMMAND = (sys.executable, "-c", PROGRAM)


@dataclass(frozen=True)
class Start:
    """One start: seconds by the clock and of a core, largest memory in MB."""

    seconds: float
    core_s: float
    memory_mb: float


def start_once(arguments: list[str], cache: Path) -> Start:
    """Run `edge-detect` with `arguments` once, its compiled models kept in folder `cache`.

    Raises:
        DeviceError: it failed; the message is its last line.
    """
    with tempfile.TemporaryFile() as said:
        began = time.perf_counter()
        process = subprocess.Popen(
            [*COMMAND, *arguments], stdout=said, stderr=said, env={**os.environ, "CACHE_DIRECTORY": str(cache)}
        )
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        text = said.read().decode(errors="replace")
    if process.returncode:
        errors = [line for line in text.splitlines() if line.startswith("error")]
        raise DeviceError(f"edge-detect failed: {(errors or text.splitlines() or ['no reason'])[-1]}")
    peak = re.findall(r"VmHWM:\s+(\d+) kB", text)
    return Start(seconds, used.ru_utime + used.ru_stime, int(peak[-1]) / 1024)


def measure_cold(
    bundle: Annotated[Path, typer.Argument(help="A bundle.")],
    times: Annotated[int, typer.Option(min=1, help="How many starts are measured.")] = 9,
    faces: Annotated[str, typer.Option(help="The face stage, as edge-detect takes it.")] = "auto",
) -> int:
    """Measure how long a picture takes from a cold start, and how much memory."""
    from PIL import Image

    from train.sample_faces import draw_face

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Image.fromarray(draw_face(42, 400)).save(folder / "one.jpg")
        arguments = [str(folder / "one.jpg"), "--model", str(bundle), "--faces", faces]
        starts = [start_once(arguments, folder) for _ in range(times + 1)][1:]
    for what, values, unit in (
        ("by the clock", [start.seconds for start in starts], "s"),
        ("of a core", [start.core_s for start in starts], "s"),
        ("largest memory", [start.memory_mb for start in starts], "MB"),
    ):
        print(f"{what}: {statistics.median(values):.2f} {unit} ({min(values):.2f} to {max(values):.2f})")
    return 0


def main() -> None:
    """Start the command."""
    run_command(measure_cold, "python -m benchmarks.studies.cold")


if __name__ == "__main__":
    main()
