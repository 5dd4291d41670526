"""Measures judge-pictures: memory by number of pictures, and the rate of its workers against a single process.

    python -m benchmarks.studies.bulk BUNDLE

The pictures are hard links to a few hundred small JPEGs. Without a bundle a network of about a hundred weights judges
them, so that everything around the network is what is measured.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
from rich.progress import track

from benchmarks.studies.pipeline import textures
from benchmarks.studies.small import write_small_bundle
from edge_runtime.command import run_command
from export.children.scratch import ScratchFolder

DIFFERENT = 256
"""Number of different pictures."""

SIDE = 96

FOLDER_SIZE = 10_000

SAMPLE_S = 0.2


def link_pictures(folder: Path, count: int) -> Path:
    """Make `count` hard links to DIFFERENT pictures in folders of FOLDER_SIZE; return their folder."""
    originals, links = folder / "originals", folder / f"pictures-{count}"
    if not originals.exists():
        originals.mkdir()
        for number, picture in enumerate(textures(DIFFERENT, SIDE)):
            picture.save(originals / f"{number}.jpg", quality=90)
    for number in track(range(count), f"{count:,} links", transient=True):
        home = links / f"{number // FOLDER_SIZE:04}"
        if number % FOLDER_SIZE == 0:
            home.mkdir(parents=True)
        os.link(originals / f"{number % DIFFERENT}.jpg", home / f"{number:07}.jpg")
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
    assert process.stdout is not None
    summary = json.loads(process.stdout.read() or "{}")
    return {**summary, "wall_s": time.monotonic() - began, "driver_mb": own >> 20, "worker_mb": child >> 20}


def study(
    bundle: Annotated[Path | None, typer.Argument(help="Bundle (default: a tiny network).")] = None,
    pictures: Annotated[int, typer.Option(help="Largest number of pictures.")] = 200_000,
    rounds: Annotated[int, typer.Option(help="Interleaved rounds of the rates.")] = 3,
    rate_pictures: Annotated[int, typer.Option(help="Pictures of each rate.")] = 10_000,
) -> None:
    """Measure memory and rates."""
    with ScratchFolder() as scratch:
        model = bundle or write_small_bundle(scratch / "detector")
        program = [sys.executable, "-m", "edge_runtime.bulk.cli", "--model", str(model), "--json-summary", "--quiet"]
        cores = sorted(os.sched_getaffinity(0))
        for count in (pictures // 100, pictures // 10, pictures):
            out = scratch / f"out-{count}"
            found = measured([*program, str(link_pictures(scratch, count)), "--out", str(out), "--workers", "2"])
            size = sum(path.stat().st_size for path in out.iterdir())
            print(
                f"{count:,} pictures: {found['rows']:,} rows, {found['wall_s']:.0f} s, driver {found['driver_mb']} MB, "
                f"worker {found['worker_mb']} MB, {size / count:.1f} bytes a picture",
                flush=True,
            )
        links = link_pictures(scratch, rate_pictures)
        for number in range(rounds):
            rates = {}
            for name, workers, on in (("one worker", 1, cores[:1]), ("two workers", 2, cores[:2])):
                out = scratch / f"rate-{number}-{workers}"
                command = [*program, str(links), "--out", str(out), "--workers", str(workers), "--part-size", "500"]
                rates[name] = measured(command, set(on))["pictures_per_second"]
            command = [sys.executable, "-m", "edge_runtime.cli", "--model", str(model), "--quiet", "--no-tune"]
            command += ["--jsonl", str(scratch / f"{number}.jsonl"), str(links)]
            rates["single process"] = rate_pictures / measured(command, set(cores[:1]))["wall_s"]
            ratios = rates["one worker"] / rates["single process"], rates["two workers"] / rates["one worker"] / 2
            text = ", ".join(f"{name} {rate:.0f}/s" for name, rate in rates.items())
            print(f"round {number + 1}: {text}; {ratios[0]:.2f} and {ratios[1]:.2f} per worker", flush=True)


if __name__ == "__main__":
    run_command(study, "python -m benchmarks.studies.bulk")
