"""`make demo`: the whole way once, from faces to verdicts, by the same commands that anybody types."""

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

from benchmarks.demo.steps import Done, Journal, Step, run_steps, write_whole
from benchmarks.measure.cases import EngineKind, Mode
from benchmarks.results.schema import Accuracy, Report
from edge_runtime.command import run_command
from edge_runtime.errors import DataError
from edge_runtime.model.bundle import MANIFEST
from edge_runtime.model.contract import DEMO_NOTICE

PREPARE = "Prepare the faces: clean, split, and look for shortcuts that would give the label away"
TRAIN = "Train the detector"
FROM_SCRATCH = "No network, so no ImageNet weights: training starts from scratch, which needs many more faces."


FEWEST_EPOCHS = 8
"""Of the drawn demo, on however slow a machine: from the fifth of 18 on, its AUC on validation was over 0.9."""

WIDER_GATE = ("--max-changed", "0.05", "--max-auc-loss", "0.01")
"""Of the drawn demo: on some 140 faces, one decision that changes is nearly 1 % already."""


@dataclass(frozen=True)
class Scale:
    """How much the demo does; the default takes less than ten minutes on two cores.

    Attributes:
        faces: drawn faces; each gives a real and a fake picture.
        size: pixels a side of the samples.
        arch, epochs: of the training; None keeps the preset's epochs, or as many as there is time for.
        training_s: seconds that the epochs on drawn faces may take.
        rounds, seconds: of each case of the benchmark.
        pictures: faces that the benchmark judges for accuracy.
        shown: drawn faces in the folder that edge-detect is shown at the end.
        clip_s: seconds of the video.
    """

    faces: int = 480
    size: int = 256
    arch: str = "resnet50"
    epochs: int | None = None
    training_s: float = 300.0
    rounds: int = 3
    seconds: float = 1.0
    pictures: int = 140
    shown: int = 6
    clip_s: float = 3.0


TINY = Scale(faces=24, size=128, arch="resnet18", epochs=1, rounds=1, seconds=0.1, pictures=8, shown=2, clip_s=0.5)
"""For trying the way itself: the model learns nothing."""


def plan_demo(out: Path, data: Path | None, scale: Scale, *, online: bool) -> list[Step]:
    """Return the demo's steps, which write into `out`.

    Args:
        out: a folder.
        data: a folder with the user's own real/ and fake/; None draws sample faces.
        scale: how much is done.
        online: whether ImageNet weights can be had; asked only for the user's own faces.
    """
    drawn = data is None
    return [
        *(_samples(out, scale) if drawn else []),
        _prepare(out, data or out / "faces"),
        _train(out, scale, drawn=drawn, online=online),
        _evaluate(out),
        _export(out, drawn=drawn),
        _benchmark(out, scale),
        *_detect(out, scale, drawn=drawn),
    ]


def _samples(out: Path, scale: Scale) -> list[Step]:
    faces, clip = out / "faces", out / "clip.avi"
    draw = ("python", "-m", "train.sample_faces")
    return [
        Step(
            "Draw sample faces: through a camera they are real, through a generator fake",
            (*draw, str(faces), "--faces", str(scale.faces), "--size", str(scale.size)),
            (faces / "real", faces / "fake"),
        ),
        Step(
            "Draw a short video: on the left a real face, on the right a fake one",
            (*draw, str(clip), "--seconds", f"{scale.clip_s:g}"),
            (clip,),
        ),
    ]


def _prepare(out: Path, faces: Path) -> Step:
    return Step(
        PREPARE,
        ("prepare-faces", str(faces), "--out", str(out / "catalog")),
        (out / "catalog" / "catalog.csv",),
        "The audit found fault with these faces (see above); what is measured on them says little.",
    )


def _train(out: Path, scale: Scale, *, drawn: bool, online: bool) -> Step:
    command = ["train-detector", str(out / "catalog"), "--arch", scale.arch, "--out", str(out / "run")]
    command += ["--preset", "demo", "--demo"] if drawn else ["--preset", "quick"]
    if online:
        command += ["--weights", "imagenet"]
    if scale.epochs:
        command += ["--epochs", str(scale.epochs)]
    return Step(TRAIN, tuple(command), (out / "run" / "best.pth",))


def _evaluate(out: Path) -> Step:
    where = out / "evaluation"
    command = ("evaluate-detector", str(out / "run" / "best.pth"), str(out / "catalog"), "--out", str(where))
    return Step("Evaluate on faces that it has not seen", (*command, "--robustness", "off"), (where,))


def _export(out: Path, *, drawn: bool) -> Step:
    bundle = out / "detector"
    command = ["export-openvino", str(out / "run" / "best.pth"), "--calibration", str(out / "catalog")]
    command += ["--out", str(bundle), "--replace", "--name", "demo" if drawn else "detector", "--no-accuracy-control"]
    return Step(
        "Export: ONNX, and OpenVINO in FP32, FP16 and INT8, each held against the one before",
        (*command, *(WIDER_GATE if drawn else ())),
        (bundle / MANIFEST,),
        "Not all of it came about (see above), such as an INT8 network that passes the gate: the demo goes on with "
        "what the bundle has.",
    )


def _benchmark(out: Path, scale: Scale) -> Step:
    report = out / "benchmark"
    command = ("edge-benchmark", "--model", str(out / "detector"), "--data", str(out / "catalog"), "--out", str(report))
    limits = ("--rounds", str(scale.rounds), "--seconds", f"{scale.seconds:g}", "--pictures", str(scale.pictures))
    return Step(
        "Benchmark: FP32 against FP16 and INT8 on this machine",
        (*command, *limits, "--no-baselines"),
        (report / "report.json", report / "report.html"),
    )


def _detect(out: Path, scale: Scale, *, drawn: bool) -> list[Step]:
    pictures, clip, bundle = out / "pictures", out / "clip.avi", str(out / "detector")
    choose = ("python", "-m", "benchmarks.demo.pictures", str(out / "catalog"), str(pictures), "--count")
    slides = () if drawn else ("--clip", str(clip))
    seen = [(pictures, "Judge a folder of pictures"), (clip, "Judge the faces in a video")]
    return [
        Step("Choose some faces that it has not seen", (*choose, str(scale.shown), *slides), (pictures,)),
        *(
            Step(
                title,
                ("edge-detect", str(what), "--model", bundle, "--jsonl", str(out / f"{what.stem}.jsonl")),
                (out / f"{what.stem}.jsonl",),
                again=True,
            )
            for what, title in seen
        ),
    ]


@dataclass(frozen=True)
class Line:
    """One line of the closing table; figures are None where they were not measured."""

    precision: str
    auc: float | None
    accuracy: float | None
    fps: float | None
    latency_ms: float | None


def summarize(report: Report) -> list[Line]:
    """Return accuracy and speed by precision, on the first device that was measured."""
    found = []
    for row in report.find(engine=EngineKind.RUNTIME, mode=Mode.THROUGHPUT, isa="native", device="CPU"):
        latency = report.find(
            engine=EngineKind.RUNTIME, mode=Mode.LATENCY, isa="native", device="CPU", precision=row.case.precision
        )
        right = report.accuracy(row.case)
        found.append(
            Line(
                row.case.precision,
                _figure(right, "auc"),
                _figure(right, "accuracy"),
                row.median("end_to_end_fps"),
                latency[0].median("end_to_end_p50_ms") if latency else None,
            )
        )
    return found


def _figure(found: Accuracy | None, name: str) -> float | None:
    return found.figures[name]["value"] if found and name in found.figures else None


def show(lines: Sequence[Line], console: Console) -> None:
    """Print the table."""
    table = Table(title="The same faces, the same network, by precision")
    for name in ("precision", "AUC", "accuracy", "FPS", "latency"):
        table.add_column(name, justify="left" if name == "precision" else "right")
    for line in lines:
        latency = "-" if line.latency_ms is None else f"{line.latency_ms:.1f} ms"
        table.add_row(line.precision.upper(), _text(line.auc, 3), _text(line.accuracy, 3), _text(line.fps, 1), latency)
    console.print(table)


def _text(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def is_online(timeout_s: float = 5.0) -> bool:
    """Return whether ImageNet weights could be downloaded from where torchvision gets them."""
    from torchvision.models import ResNet50_Weights

    host = urlsplit(ResNet50_Weights.DEFAULT.url).hostname
    try:
        with socket.create_connection((host or "", 443), timeout_s):
            return True
    except OSError:
        return False


def _has_weights(out: Path) -> bool:
    """Return whether ImageNet weights can be had, or were had when the demo in `out` trained."""
    record = Journal(out).records.get(TRAIN)
    return "--weights imagenet" in record["command"] if record else is_online()


def _paced(out: Path, scale: Scale) -> Scale:
    """Return `scale` with the epochs that this machine has time for, or was given when the demo in `out` began."""
    noted = out / "pace.json"
    if not noted.exists():
        # Here, since what is done already needs no PyTorch.
        from benchmarks.demo.pace import choose_epochs

        found = choose_epochs(scale.arch, 2 * scale.faces, scale.training_s, FEWEST_EPOCHS)
        out.mkdir(parents=True, exist_ok=True)
        write_whole(noted, asdict(found))
        print(found, flush=True)
    return replace(scale, epochs=json.loads(noted.read_text(encoding="utf-8"))["epochs"])


def run_demo(out: Path, data: Path | None, scale: Scale) -> list[Line]:
    """Run every step that is not done yet, and tell what came out.

    Args:
        out: the folder for everything; the user's own faces get one of their own inside it.
        data: the user's own faces; None draws some.
        scale: how much is done.

    Raises:
        DataError: the faces can't be used.
        StepError: a step could not be done.
    """
    out, data = out.expanduser(), data.expanduser() if data else None
    if data:
        out = out / f"own-{data.resolve().name}"
        if not data.exists():
            raise DataError(f"{data}: not found; give a folder with real/ and fake/")
    began = time.monotonic()
    online = data is not None and _has_weights(out)
    if data and not online:
        print(FROM_SCRATCH)
    if data is None and scale.epochs is None:
        scale = _paced(out, scale)
    steps = plan_demo(out, data, scale, online=online)
    ended = run_steps(steps, out)
    lines = summarize(Report.read(out / "benchmark"))
    _tell(out, lines, ended, time.monotonic() - began, drawn=data is None)
    return lines


def _tell(out: Path, lines: Sequence[Line], ended: Sequence[Done], seconds: float, *, drawn: bool) -> None:
    summary = {"seconds": seconds, "steps": [asdict(done) for done in ended], "table": [asdict(line) for line in lines]}
    (out / "demo.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    print()
    show(lines, Console())
    for done in ended:
        if done.state == "short":
            print(f"not all went well: {done.title}")
    if drawn:
        print(f"This is a {DEMO_NOTICE}: it knows drawn faces alone.")
    print(f"report  {out / 'benchmark' / 'report.html'}")
    print(f"bundle  {out / 'detector'}")
    print(f"done in {int(seconds) // 60} min {int(seconds) % 60} s; try next:")
    print(f"    .venv/bin/edge-detect --camera 0 --model {shlex.quote(str(out / 'detector'))}")
    if drawn:
        print("    make demo DATA=folder   with your own faces in folder/real and folder/fake")


def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything that is made.")] = Path("demo"),
    data: Annotated[Path | None, typer.Option(help="Your own faces: a folder with real/ and fake/.")] = None,
    tiny: Annotated[bool, typer.Option("--tiny", help="Go the way with a model that learns nothing.")] = False,
) -> int:
    """Go the whole way once: faces, training, evaluation, export, benchmark, verdicts.

    A second run skips what is done. Without `--data` the faces are drawn.
    """
    run_demo(out, data, TINY if tiny else Scale())
    return 0


def main() -> None:
    """Start the command."""
    run_command(demo, "demo")


if __name__ == "__main__":
    main()
