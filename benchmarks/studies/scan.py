"""Measures scanning very many small files: files/s, and whether memory stays bounded.

    python -m benchmarks.studies.scan --files 50000

The files are scanned as `prepare-faces` scans them, stopped half way, and scanned again from the notes. A process of
its own makes them.
"""

import itertools
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import psutil
import typer
from PIL import Image

from benchmarks.measure.children import in_process
from benchmarks.measure.memory import peak_memory_mb
from edge_runtime.command import run_command
from edge_runtime.model.contract import LABELS
from export.children.scratch import ScratchFolder
from train.commands.prepare import PrepareOptions, find_pictures, scan_notes
from train.data.build import build_catalog
from train.data.catalog import SEED

SIDE = 64
"""Width and height of a file's picture in pixels."""


class StoppedError(Exception):
    """The wanted number of files was scanned."""


@dataclass(frozen=True)
class Scan:
    """One scan: number of files, wall-clock and CPU seconds, and memory in MB before and after it."""

    files: int
    seconds: float
    cpu_s: float
    before_mb: float
    after_mb: float

    def __str__(self) -> str:
        rate, cpu_ms = self.files / self.seconds, 1000 * self.cpu_s / self.files
        grown = 1e6 * (self.after_mb - self.before_mb) / self.files
        return (
            f"{self.files} files, {rate:.0f} files/s, {cpu_ms:.2f} ms CPU time per file; "
            f"{self.before_mb:.0f} → {self.after_mb:.0f} MB, {grown:.0f} bytes per file"
        )


def memory_mb() -> float:
    """Return this process's resident memory."""
    return psutil.Process().memory_info().rss / 1e6


def write_files(folder: Path, count: int) -> None:
    """Write `count` different small JPEGs, half into real/ and half into fake/."""
    random = np.random.default_rng(SEED)
    for number in range(count):
        place = folder / LABELS[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        patches = Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8))
        patches.resize((SIDE, SIDE), Image.Resampling.BILINEAR).save(place / f"{number // 2:06d}.jpg", quality=85)


def scan_files(folder: Path, notes: Path, stop_after: int | None = None) -> Scan:
    """Scan `folder` with what `notes` already has, to the end or until `stop_after` files are done."""
    counted = itertools.count(1)

    def advance(done: int) -> None:
        if next(counted) == stop_after:
            raise StoppedError

    before, start, cpu = memory_mb(), time.perf_counter(), time.process_time()
    listing = find_pictures([folder], PrepareOptions())
    try:
        with scan_notes(notes) as (known, remember):
            catalog = build_catalog(listing.files, known=known, remember=remember, advance=advance)
            files = len(catalog.records) + len(catalog.quarantine)
    except StoppedError:
        files = stop_after or 0
    return Scan(
        files=files,
        seconds=time.perf_counter() - start,
        cpu_s=time.process_time() - cpu,
        before_mb=before,
        after_mb=memory_mb(),
    )


def scan(files: Annotated[int, typer.Option(min=100, help="Number of files.")] = 50_000) -> int:
    """Scan very many small files, with a stop half way."""
    with ScratchFolder() as scratch:
        folder, notes = scratch / "faces", scratch / "scan.jsonl"
        in_process(write_files, folder, files)
        scan_files(folder, scratch / "warm.jsonl", stop_after=100)
        print(f"first half: {scan_files(folder, notes, stop_after=files // 2)}", flush=True)
        print(f"all, half of it from the notes: {scan_files(folder, notes)}", flush=True)
        print(f"all from the notes: {scan_files(folder, notes)}")
        print(f"peak memory: {peak_memory_mb():.0f} MB; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    return 0


if __name__ == "__main__":
    run_command(scan, "python -m benchmarks.studies.scan")
