"""Scan very many small files: how many a second, and does memory stay bounded?

    python -m benchmarks.studies.scan --files 50000

The files are made first, by a process of its own. They are scanned as `prepare-faces` scans them, stopped half way,
and scanned again from the notes.
"""

import itertools
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

from benchmarks.measure.memory import peak_memory_mb
from edge_runtime.command import run_command
from edge_runtime.model.contract import LABELS

SIDE = 64
"""Pixels a side of a file."""


class StoppedError(Exception):
    """As many files were scanned as were wanted."""


@dataclass(frozen=True)
class Scan:
    """What one scan did: files and seconds, and memory in MB before and after it."""

    files: int
    seconds: float
    cpu_s: float
    before_mb: float
    after_mb: float

    def __str__(self) -> str:
        rate, core = self.files / self.seconds, 1000 * self.cpu_s / self.files
        return f"{self.files} files, {rate:.0f} a second, {core:.2f} ms of core time each; {self._memory()}"

    def _memory(self) -> str:
        grown = 1e6 * (self.after_mb - self.before_mb) / self.files
        return f"{self.before_mb:.0f} → {self.after_mb:.0f} MB, {grown:.0f} bytes a file"


def memory_mb() -> float:
    """Return what this process holds in memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def write_files(folder: Path, count: int) -> None:
    """Write `count` small JPEGs, one half into real/ and one into fake/, each with a picture of its own."""
    random = np.random.default_rng(42)
    for number in range(count):
        place = folder / LABELS[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        patches = Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8))
        patches.resize((SIDE, SIDE), Image.Resampling.BILINEAR).save(place / f"{number // 2:06d}.jpg", quality=85)


def scan_files(folder: Path, notes: Path, stop_after: int | None = None) -> Scan:
    """Scan `folder` with what `notes` know, to the end or until `stop_after` files are done."""
    from train.commands.prepare import PrepareOptions, ScanNotes, find_candidates
    from train.data.build import build_catalog

    counted = itertools.count(1)

    def advance(done: int) -> None:
        if next(counted) == stop_after:
            raise StoppedError

    before, start, cpu = memory_mb(), time.perf_counter(), time.process_time()
    candidates = find_candidates([folder], PrepareOptions())
    try:
        with ScanNotes(notes) as scan:
            catalog = build_catalog(candidates, known=scan.known, remember=scan.add, advance=advance)
            files = len(catalog.records) + len(catalog.quarantine)
    except StoppedError:
        files = stop_after or 0
    return Scan(files, time.perf_counter() - start, time.process_time() - cpu, before, memory_mb())


def scan(files: Annotated[int, typer.Option(min=100, help="How many files.")] = 50_000) -> int:
    """Make very many small files and scan them, with a stop half way."""
    with tempfile.TemporaryDirectory() as name:
        folder, notes = Path(name) / "faces", Path(name) / "scan.jsonl"
        making = f"from benchmarks.studies.scan import *; write_files(Path({str(folder)!r}), {files})"
        subprocess.run([sys.executable, "-c", making], check=True)
        scan_files(folder, Path(name) / "warm.jsonl", stop_after=100)
        print(f"first half:  {scan_files(folder, notes, stop_after=files // 2)}", flush=True)
        print(f"all, half of it from the notes: {scan_files(folder, notes)}", flush=True)
        print(f"all from the notes: {scan_files(folder, notes)}")
        print(f"memory peak: {peak_memory_mb():.0f} MB; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    return 0


def main() -> None:
    """Start the measurement."""
    run_command(scan, "scan")


if __name__ == "__main__":
    main()
