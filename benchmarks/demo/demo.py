"""`make demo`: every stage once, from faces to verdicts, with the commands that a user types."""

import itertools
import json
import shlex
import socket
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.demo.steps import DemoStep, Journal, StepResult, run_steps
from benchmarks.measure.cases import EngineKind, Mode
from benchmarks.results.schema import Report
from edge_runtime.atomic import write_atomic
from edge_runtime.command import run_command
from edge_runtime.errors import DataError, UsageError
from edge_runtime.model.bundle import MANIFEST
from edge_runtime.model.contract import DEMO_NOTICE
from edge_runtime.paths import expand
from edge_runtime.plain_json import plain
from train.commands.output import output_folder

TRAIN = "Train the detector"
OFFLINE = "efficientnet_lite0"
"""The backbone whose ImageNet weights are installed with this project, as a package."""

FEWEST_EPOCHS = 8
"""Fewest epochs on drawn faces, on any machine: by the fifth of 18 the validation AUC was over 0.9."""

WIDER_GATE = ("--max-changed", "0.05", "--max-auc-loss", "0.01")
"""For drawn faces: on some 140 faces a single changed decision is nearly 1 %."""


MARK = "made-by-demo.txt"
"""This file is in a folder that the demo made; `make clean` removes no other."""


@dataclass(frozen=True)
class DemoScale:
    """How much the demo does; the default takes less than ten minutes on two cores.

    Attributes:
        faces: number of drawn faces of `size` pixels; each gives a real and a fake picture.
        weights: `imagenet` or `none`.
        epochs: None takes the preset's, or on drawn faces as many as fit into `training_s`.
        training_s: time for training on drawn faces, in seconds.
        rounds, seconds, pictures: options of the benchmark.
        shown: faces per class in the folder that edge-detect judges at the end.
        clip_s: length of the video in seconds.
    """

    faces: int = 480
    size: int = 256
    arch: str = "resnet50"
    weights: str = "none"
    epochs: int | None = None
    training_s: float = 300.0
    rounds: int = 3
    seconds: float = 1.0
    pictures: int = 140
    shown: int = 6
    clip_s: float = 3.0


TINY = DemoScale(faces=24, size=128, arch="resnet18", epochs=1, rounds=1, seconds=0.1, pictures=8, shown=2, clip_s=0.5)
"""A quick run to try the demo itself; the model learns nothing."""


def plan_demo(out: Path, data: Path | None, scale: DemoScale) -> list[DemoStep]:
    """Return the demo's steps, which write into `out`; without `data`, the user's own faces, faces are drawn."""
    drawn = data is None
    faces, clip, catalog, pictures = out / "faces", out / "clip.avi", out / "catalog", out / "pictures"
    checkpoint, bundle, benchmark = out / "run" / "best.pth", out / "detector", out / "benchmark"
    training: tuple[object, ...] = ("--preset", "demo", "--demo") if drawn else ("--preset", "quick")
    training += ("--weights", scale.weights) if scale.weights != "none" else ()
    training += ("--epochs", scale.epochs) if scale.epochs else ()
    slides = () if drawn else ("--clip", clip)
    limits = ("--rounds", scale.rounds, "--seconds", f"{scale.seconds:g}", "--pictures", scale.pictures)
    return [
        *(sample_steps(faces, clip, scale) if drawn else []),
        DemoStep(
            title="Prepare the faces: clean, split, and look for shortcuts that give the label away",
            command=_command("prepare-faces", data or faces, "--out", catalog),
            made=(catalog / "catalog.csv",),
            if_partial="the audit found a fault in these faces; results on them mean little",
        ),
        DemoStep(
            title=TRAIN,
            command=_command("train-detector", catalog, "--arch", scale.arch, "--out", out / "run", *training),
            made=(checkpoint,),
        ),
        DemoStep(
            title="Evaluate on held-out faces",
            command=_command(
                "evaluate-detector", checkpoint, catalog, "--out", out / "evaluation", "--robustness", "off"
            ),
            made=(out / "evaluation",),
        ),
        DemoStep(
            title="Export: ONNX, and OpenVINO in FP32, FP16 and INT8, each compared with the one before",
            command=_command(
                "export-openvino",
                *(checkpoint, "--calibration", catalog, "--out", bundle, "--replace"),
                *("--name", "demo" if drawn else "detector", "--no-accuracy-control", *(WIDER_GATE if drawn else ())),
            ),
            made=(bundle / MANIFEST,),
            if_partial="the bundle is incomplete, for example without INT8; the demo continues with the rest",
        ),
        DemoStep(
            title="Benchmark: FP32 against FP16 and INT8 on this machine",
            command=_command(
                "edge-benchmark", "--model", bundle, "--data", catalog, "--out", benchmark, *limits, "--no-baselines"
            ),
            made=(benchmark / "report.json", benchmark / "report.html"),
        ),
        DemoStep(
            title="Choose some held-out faces",
            command=_command("python -m benchmarks.demo.pictures", catalog, pictures, "--count", scale.shown, *slides),
            made=(pictures,),
        ),
        *(
            DemoStep(
                title=title,
                command=_command("edge-detect", source, "--model", bundle, "--jsonl", out / f"{source.stem}.jsonl"),
                made=(out / f"{source.stem}.jsonl",),
                again=True,
            )
            for source, title in ((pictures, "Judge a folder of pictures"), (clip, "Judge the faces in a video"))
        ),
    ]


def sample_steps(faces: Path, clip: Path, scale: DemoScale) -> list[DemoStep]:
    """Return the steps that draw sample faces and a short video."""
    return [
        DemoStep(
            title="Draw sample faces: real through a camera, fake through a generator",
            command=_command("python -m train.sample_faces", faces, "--faces", scale.faces, "--size", scale.size),
            made=(faces / "real", faces / "fake"),
        ),
        DemoStep(
            title="Draw a short video: a real face on the left, a fake one on the right",
            command=_command("python -m train.sample_faces", clip, "--seconds", f"{scale.clip_s:g}"),
            made=(clip,),
        ),
    ]


def _command(program: str, *arguments: object) -> tuple[str, ...]:
    return (*program.split(), *map(str, arguments))


@dataclass(frozen=True)
class Summary:
    """One line of the closing table; figures are None if they were not measured."""

    precision: str
    auc: float | None
    accuracy: float | None
    fps: float | None
    latency_ms: float | None


def summarize(report: Report) -> list[Summary]:
    """Return accuracy and speed by precision on the CPU."""
    place = {"engine": EngineKind.RUNTIME, "isa": "native", "device": "CPU"}
    found = []
    for row in report.find(mode=Mode.THROUGHPUT, **place):
        latency = report.find(mode=Mode.LATENCY, precision=row.case.precision, **place)
        accuracy = report.accuracy(row.case)
        figures = accuracy.figures if accuracy else {}
        found.append(
            Summary(
                precision=row.case.precision,
                auc=figures["auc"]["value"] if "auc" in figures else None,
                accuracy=figures["accuracy"]["value"] if "accuracy" in figures else None,
                fps=row.median("end_to_end_fps"),
                latency_ms=latency[0].median("end_to_end_p50_ms") if latency else None,
            )
        )
    return found


def print_table(lines: Sequence[Summary], console: Console) -> None:
    """Print the closing table."""
    table = Table(title="The same faces and the same network, by precision")
    for name in ("precision", "AUC", "accuracy", "speed, frames/s", "median latency, ms"):
        table.add_column(name, justify="left" if name == "precision" else "right")
    for line in lines:
        figures = ((line.auc, 3), (line.accuracy, 3), (line.fps, 1), (line.latency_ms, 1))
        cells = ("-" if value is None else f"{value:.{digits}f}" for value, digits in figures)
        table.add_row(line.precision.upper(), *cells)
    console.print(table)


def has_weights(arch: str, timeout_s: float = 5.0) -> bool:
    """Return whether torchvision's ImageNet weights for `arch` were downloaded before, or can be now."""
    import torch
    from torchvision.models import get_model_weights

    url = urlsplit(get_model_weights(arch)["DEFAULT"].url)
    if Path(torch.hub.get_dir(), "checkpoints", Path(url.path).name).is_file():
        return True
    try:
        with socket.create_connection((url.hostname or "", 443), timeout_s):
            return True
    except OSError:
        return False


def start_pretrained(out: Path, scale: DemoScale) -> DemoScale:
    """Return `scale` with a backbone whose ImageNet weights are available; a resumed demo keeps its backbone."""
    if command := Journal(out).command(TRAIN):
        words = shlex.split(command)
        given = dict(itertools.pairwise(words))
        return replace(scale, arch=given.get("--arch", scale.arch), weights=given.get("--weights", "none"))
    if not has_weights(scale.arch):
        print(f"The ImageNet weights of {scale.arch} can't be downloaded, so this demo trains {OFFLINE} with its own.")
        scale = replace(scale, arch=OFFLINE)
    return replace(scale, weights="imagenet")


def scale_to_machine(out: Path, scale: DemoScale) -> DemoScale:
    """Return `scale` with the epochs that this machine has time for; a resumed demo keeps its number."""
    path = out / "pace.json"
    try:
        epochs = json.loads(path.read_text(encoding="utf-8"))["epochs"]
    except (OSError, ValueError, LookupError, TypeError):
        epochs = None
    if type(epochs) is not int:
        # Imported here because PyTorch is not needed to skip what is done.
        from benchmarks.demo.pace import choose_epochs

        pace = choose_epochs(scale.arch, 2 * scale.faces, scale.training_s, FEWEST_EPOCHS)
        out.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(asdict(pace), indent=1) + "\n")
        print(pace, flush=True)
        epochs = pace.epochs
    return replace(scale, epochs=epochs)


def run_demo(out: Path, data: Path | None, scale: DemoScale) -> list[StepResult]:
    """Run every step that is not done yet, print the result, and return how each step ended.

    The user's own faces get a folder inside `out`; without them (`data`) sample faces are drawn.

    Raises:
        DataError: the faces can't be used.
        UsageError: `out` can't be used.
        StepError: a step failed.
    """
    out, data = output_folder(out), expand(data) if data else None
    home = out
    if data:
        out = out / f"own-{data.resolve().name}"
        if not data.exists():
            raise DataError(f"{data}: not found; give a folder with real/ and fake/")
        if out.resolve().is_relative_to(data.resolve()):
            raise UsageError(f"--out {out}: is inside the folder of your faces; choose another folder")
    if not home.exists() or not any(home.iterdir()):
        home.mkdir(parents=True, exist_ok=True)
        (home / MARK).write_text("make demo made this folder; make clean removes it.\n", encoding="utf-8")
    began = time.monotonic()
    if data:
        scale = start_pretrained(out, scale)
    elif scale.epochs is None:
        scale = scale_to_machine(out, scale)
    results = run_steps(plan_demo(out, data, scale), out)
    lines = summarize(Report.read(out / "benchmark"))
    seconds = time.monotonic() - began
    summary = {"seconds": seconds, "steps": results, "table": lines}
    write_atomic(out / "demo.json", json.dumps(plain(summary), indent=1) + "\n")
    print()
    print_table(lines, Console())
    if data is None:
        print(f"This is a {DEMO_NOTICE}: it knows only drawn faces.")
    print(f"report  {out / 'benchmark' / 'report.html'}")
    print(f"bundle  {out / 'detector'}")
    print(f"done in {int(seconds) // 60} min {int(seconds) % 60} s; try next:")
    print(f"    .venv/bin/edge-detect --camera 0 --model {shlex.quote(str(out / 'detector'))}")
    if data is None:
        print("    make demo DATA=folder   with your own faces in folder/real and folder/fake")
    for result in results:
        if result.problem:
            print(f"not everything went well: {result.problem}")
    return results


def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything that is made.")] = Path("demo"),
    data: Annotated[Path | None, typer.Option(help="Your own faces: a folder with real/ and fake/.")] = None,
    tiny: Annotated[bool, typer.Option("--tiny", help="Try the demo with a model that learns nothing.")] = False,
) -> int:
    """Run every stage once: faces, training, evaluation, export, benchmark, verdicts.

    Without `--data` the faces are drawn. A second run skips what is done. Exit code 1 if not everything went well.
    """
    try:
        results = run_demo(out, data, TINY if tiny else DemoScale())
    except OSError as error:
        raise UsageError(f"{error.filename or out}: {error.strerror or error}; choose another --out") from None
    return 1 if any(result.problem for result in results) else 0


def main() -> None:
    """Start the command."""
    run_command(demo, "demo")


if __name__ == "__main__":
    main()
