"""Measures judge-pictures: memory by number of pictures, and the rate of its workers against a single process.

    python -m benchmarks.studies.bulk BUNDLE

The pictures are hard links to a few hundred small JPEGs.
Without a bundle a network of about a hundred weights judges them, so that everything around the network is measured.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
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

    The pictures are drawn, or copied from below `faces`. A folder of this count that exists is returned as it is.
    """
    originals, links = folder / "originals", folder / f"pictures-{count}"
    if links.exists():
        return links
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
    """Run a command; return its JSON summary, its seconds by the clock and of CPU with all children's, and the largest
    memory in MB of it and of its largest child.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
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
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    seconds = {"wall_s": time.monotonic() - began, "cpu_s": cpu_s}
    return {**summary, **seconds, "driver_mb": own >> 20, "worker_mb": child >> 20}


def rates(command: list[str], cores: list[int], folders: Sequence[Path], out: Path) -> tuple[float, float]:
    """Return pictures per second, and per second of CPU, on some cores: of a large folder less a small one, so that
    start-up is left out.

    `command` takes the folder behind it; {out} in it becomes a fresh name.
    """
    counts, ran = [], []
    for folder in folders:
        counts.append(sum(1 for _ in folder.rglob("*.jpg")))
        filled = [part.format(out=out / folder.name) for part in command]
        ran.append(measured([*filled, str(folder)], set(cores)))
    pictures = counts[1] - counts[0]
    return pictures / (ran[1]["wall_s"] - ran[0]["wall_s"]), pictures / (ran[1]["cpu_s"] - ran[0]["cpu_s"])


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
        folders = [link_pictures(scratch, count, faces) for count in (rate_pictures // 10, rate_pictures)]
        _measure_rates(str(model), judge, folders, rounds, scratch)


def _measure_rates(model: str, judge: list[str], folders: Sequence[Path], rounds: int, scratch: Path) -> None:
    cores = sorted(os.sched_getaffinity(0))
    part = str(max(1, sum(1 for _ in folders[0].rglob("*.jpg")) // 2))
    single = [sys.executable, "-m", "edge_runtime.cli", "--model", model, "--quiet", "--no-tune", "--jsonl"]
    ratios: dict[str, list[float]] = {}
    for number in range(rounds):
        (out := scratch / f"rate-{number}").mkdir()
        ran = {"single process": rates([*single, "{out}.jsonl"], cores[:1], folders, out)}
        for name, workers in (("one worker", 1), ("two workers", 2)):
            command = [*judge, "--part-size", part, "--workers", str(workers), "--out", "{out}-" + str(workers)]
            ran[name] = rates(command, cores[:workers], folders, out)
        single_process, one, two = ran["single process"], ran["one worker"], ran["two workers"]
        for name, ratio in {
            "one worker by single process": one[0] / single_process[0],
            "one worker by single process, CPU time": one[1] / single_process[1],
            "two workers by twice one": two[0] / one[0] / 2,
            "two workers by one, CPU time": two[1] / one[1],
        }.items():
            ratios.setdefault(name, []).append(ratio)
        text = ", ".join(
            f"{name} {by_clock:.0f}/s ({by_cpu:.0f} per CPU s)" for name, (by_clock, by_cpu) in ran.items()
        )
        print(f"round {number + 1}: {text}", flush=True)
    for name, values in ratios.items():
        print(f"{name}: median {median(values):.2f} ({min(values):.2f} to {max(values):.2f})")


if __name__ == "__main__":
    run_command(study, "python -m benchmarks.studies.bulk")
