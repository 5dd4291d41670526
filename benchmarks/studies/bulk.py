"""Measures judge-pictures: memory by number of pictures, and the rate of its workers against a single process.

    python -m benchmarks.studies.bulk BUNDLE

The pictures are hard links to a few hundred small JPEGs.
Without a bundle a network of about a hundred weights judges them, so that everything around the network is measured.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import psutil
import typer
from rich.progress import track

from benchmarks.studies.pipeline import textures
from benchmarks.studies.small import write_small_bundle
from edge_runtime.command import run_command
from edge_runtime.errors import DeviceError
from export.children.scratch import ScratchFolder

DIFFERENT = 256
"""Number of different pictures."""

SIDE = 96

FOLDER_SIZE = 10_000

SAMPLE_S = 0.2


def link_pictures(folder: Path, count: int, faces: Path | None = None) -> Path:
    """Make `count` hard links to DIFFERENT pictures in folders of FOLDER_SIZE; return their folder.

    The pictures are drawn, or copied from below `faces`.
    """
    originals, links = folder / "originals", folder / f"pictures-{count}"
    if not originals.exists():
        originals.mkdir()
        if faces is None:
            for number, picture in enumerate(textures(DIFFERENT, SIDE)):
                picture.save(originals / f"{number}.jpg", quality=90)
        else:
            for number, path in enumerate(islice(sorted(faces.rglob("*.jpg")), DIFFERENT)):
                shutil.copy(path, originals / f"{number}.jpg")
    different = len(list(originals.iterdir()))
    for number in track(range(count), f"{count:,} links", transient=True):
        home = links / f"{number // FOLDER_SIZE:04}"
        if number % FOLDER_SIZE == 0:
            home.mkdir(parents=True)
        os.link(originals / f"{number % different}.jpg", home / f"{number:07}.jpg")
    return links


def measured(command: list[str], cores: set[int] | None = None) -> dict[str, Any]:
    """Run a command; return its JSON summary, and the largest memory in MB of it and of its largest child."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    root, own, child = psutil.Process(process.pid), 0, 0
    if cores is not None:
        os.sched_setaffinity(process.pid, cores)
    began = time.monotonic()
    while process.poll() is None:
        try:
            own = max(own, root.memory_info().rss)
            child = max([child, *(found.memory_info().rss for found in root.children())])
        except psutil.Error:
            pass  # It has just ended.
        time.sleep(SAMPLE_S)
    if process.returncode:
        raise DeviceError(f"{' '.join(command)}: ended with {process.returncode}")
    assert process.stdout is not None
    summary = json.loads(process.stdout.read() or "{}")
    return {**summary, "wall_s": time.monotonic() - began, "driver_mb": own >> 20, "worker_mb": child >> 20}


def rate(command: list[str], cores: list[int], folders: tuple[Path, Path], out: Path) -> float:
    """Return pictures per second on some cores, start-up left out: the difference between a large and a small folder.

    `command` ends with the folder; {out} in it becomes a fresh one.
    """
    counts, walls = [], []
    for folder in folders:
        counts.append(sum(1 for _ in folder.rglob("*.jpg")))
        filled = [part.format(out=out / folder.name) for part in command]
        walls.append(measured([*filled, str(folder)], set(cores))["wall_s"])
    return (counts[1] - counts[0]) / (walls[1] - walls[0])


def study(
    bundle: Annotated[Path | None, typer.Argument(help="Bundle (default: a tiny network).")] = None,
    pictures: Annotated[int, typer.Option(help="Largest number of pictures, for memory; 0 leaves it out.")] = 200_000,
    rounds: Annotated[int, typer.Option(help="Interleaved rounds of the rates.")] = 3,
    rate_pictures: Annotated[int, typer.Option(help="Pictures of each rate.")] = 10_000,
    faces: Annotated[Path | None, typer.Option(help="Folder of JPEGs to link to (default: drawn ones).")] = None,
) -> None:
    """Measure memory and rates."""
    with ScratchFolder() as scratch:
        model = bundle or write_small_bundle(scratch / "detector")
        judge = [sys.executable, "-m", "edge_runtime.bulk.cli", "--model", str(model), "--json-summary", "--quiet"]
        for count in (pictures // 100, pictures // 10, pictures) if pictures else ():
            out = scratch / f"out-{count}"
            found = measured([*judge, str(link_pictures(scratch, count, faces)), "--out", str(out), "--workers", "2"])
            size = sum(path.stat().st_size for path in out.iterdir())
            print(
                f"{count:,} pictures: {found['rows']:,} rows, {found['wall_s']:.0f} s, driver {found['driver_mb']} MB, "
                f"worker {found['worker_mb']} MB, {size / count:.1f} bytes a picture",
                flush=True,
            )
        folders = tuple(link_pictures(scratch, count, faces) for count in (rate_pictures // 10, rate_pictures))
        cores = sorted(os.sched_getaffinity(0))
        part = str(max(1, rate_pictures // 20))
        single = [sys.executable, "-m", "edge_runtime.cli", "--model", str(model), "--quiet", "--no-tune"]
        single += ["--jsonl", "{out}.jsonl"]
        ratios = []
        for number in range(rounds):
            (out := scratch / f"rate-{number}").mkdir()
            ran = {"single process": rate(single, cores[:1], folders, out)}
            for name, workers in (("one worker", 1), ("two workers", 2)):
                command = [*judge, "--part-size", part, "--workers", str(workers), "--out", "{out}-" + str(workers)]
                ran[name] = rate(command, cores[:workers], folders, out)
            ratios.append((ran["one worker"] / ran["single process"], ran["two workers"] / ran["one worker"] / 2))
            text = ", ".join(f"{name} {value:.0f}/s" for name, value in ran.items())
            print(f"round {number + 1}: {text}; ratios {ratios[-1][0]:.2f} and {ratios[-1][1]:.2f}", flush=True)
        names = ("one worker by single process", "two workers by twice one")
        for name, values in zip(names, zip(*ratios, strict=True), strict=True):
            print(f"{name}: median {median(values):.2f} ({min(values):.2f} to {max(values):.2f})")


if __name__ == "__main__":
    run_command(study, "python -m benchmarks.studies.bulk")
