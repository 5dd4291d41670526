"""`edge-benchmark`: which precision, which device and which backbone, on this machine, and what it costs."""

import shlex
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, NoReturn

import openvino as ov
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import report as reporting
from benchmarks import tune as tuning
from benchmarks.accuracy import choose_pictures
from benchmarks.answer import MAX_AUC_LOSS, answers, fastest
from benchmarks.cases import Limits
from benchmarks.circumstances import Circumstances
from benchmarks.results import Report
from benchmarks.run import Plan, Run, name_bundles
from board_setup.isa import CAPS, cpu_flags
from edge_runtime.bundle import Bundle, find_bundle
from edge_runtime.command import run_command
from edge_runtime.errors import UsageError
from edge_runtime.profile import write_profile
from train.catalog import load_data


def benchmark(
    data: Annotated[Path, typer.Option(help="Labelled faces: catalog.csv, or a folder with real/ and fake/.")],
    out: Annotated[Path, typer.Option(help="Folder for report.html, report.md, report.json and plots.")],
    model: Annotated[list[Path] | None, typer.Option(help="A bundle; several to compare backbones.")] = None,
    checkpoint: Annotated[
        list[Path] | None, typer.Option(help="The .pth that a bundle was made from, for PyTorch's rows.")
    ] = None,
    isa: Annotated[
        list[str] | None, typer.Option(help="native, avx2 or sse42: cap each measurement to it; several to compare.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often each case is measured, A B A B …")] = 5,
    seconds: Annotated[float, typer.Option(min=0.05, help="How long one figure of one round is measured.")] = 2.0,
    frames: Annotated[
        int, typer.Option(min=1, help="At most so many frames a figure: few, for a very slow machine.")
    ] = 1_000_000,
    pictures: Annotated[
        int | None, typer.Option(min=2, help="Faces for accuracy; all of the test split if not said.")
    ] = None,
    tune: Annotated[bool, typer.Option("--tune", help="Find the best setting and make it edge-detect's.")] = False,
    target_fps: Annotated[float | None, typer.Option(min=0.1, help="With --tune: as fast as that is enough.")] = None,
    max_auc_loss: Annotated[
        float, typer.Option(min=0.0, help="AUC that may be lost against FP32 in what is recommended.")
    ] = MAX_AUC_LOSS,
    minutes: Annotated[
        float | None, typer.Option(min=0.01, help="Then run the best without a pause; with --tune, the time it has.")
    ] = None,
    baselines: Annotated[bool, typer.Option(help="Measure PyTorch, ONNX Runtime and benchmark_app too.")] = True,
) -> int:
    """Measure bundles on this machine: speed, latency, memory and accuracy by precision and device.

    - `edge-benchmark --model detector --data faces --out report` answers which precision to take here

    - `edge-benchmark --model a --model b --data faces --out report` compares backbones

    - `edge-benchmark … --isa native --isa sse42` adds the figures of a CPU without AVX

    - `edge-benchmark --tune --data faces --out report` finds the best setting and makes it edge-detect's

    - `edge-benchmark … --minutes 30` then runs the best for half an hour and shows FPS and clock over time

    - `edge-benchmark compare A.json B.json` tells what got faster or slower beyond the noise; exit 1 if slower
    """
    console = Console(stderr=True)
    bundles = name_bundles([Bundle.open(path) for path in model] if model else [find_bundle()])
    with _progress(console) as progress:
        task = progress.add_task("reading faces", total=None)
        catalog = load_data(data, advance=lambda done: progress.advance(task, done))
    plan = Plan(
        bundles,
        choose_pictures(catalog, pictures or (tuning.FACES if tune else None)),
        match_checkpoints(bundles, checkpoint or []),
        devices_here(),
        check_isas(isa or ["native"]),
        rounds,
        Limits(seconds, frames, min(frames, Limits().warmup_frames)),
        baselines and not tune,
        catalog.fingerprint,
    )
    around = Circumstances.here(shlex.join(["edge-benchmark", *sys.argv[1:]]))
    if tune:
        return _tune(plan, around, tuning.Wish(60.0 * (minutes or 5.0), target_fps, max_auc_loss), out, console)
    report, interrupted = _measure(plan, around, 60.0 * (minutes or 0.0), max_auc_loss, console)
    page = reporting.write(report, out.expanduser())
    return _tell(report, page, interrupted)


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)


def _tune(plan: Plan, around: Circumstances, wish: tuning.Wish, out: Path, console: Console) -> int:
    tuning.check(plan, around.emulator)
    with _progress(console) as progress:
        task = progress.add_task("starting", total=None)
        run = Run(
            plan,
            around,
            cases=tuning.candidates(plan),
            advance=lambda text: progress.update(task, description=text, advance=1),
        )
        chosen, refused = tuning.tune(run, wish)
    path = write_profile(tuning.profile_of(plan, chosen))
    answer = (
        tuning.words(chosen, wish),
        f"edge-detect uses this from now on with this bundle on this machine ({path}).",
    )
    report = replace(run.report(), answer=answer, left_out=tuple(refused))
    code = _tell(report, reporting.write(report, out.expanduser()), interrupted=False)
    return code if chosen.reached else 1


def _measure(
    plan: Plan, circumstances: Circumstances, sustained_s: float, max_auc_loss: float, console: Console
) -> tuple[Report, bool]:
    """Measure a plan; return what was found, and whether it was interrupted."""
    interrupted = False
    with _progress(console) as progress:
        task = progress.add_task("starting")
        run = Run(plan, circumstances, advance=lambda text: progress.update(task, description=text, advance=1))
        progress.update(task, total=run.steps, completed=-1)
        try:
            run.measure_rounds()
            run.measure_accuracy()
            best = fastest(run.report(), max_auc_loss)
            if sustained_s and best is not None:
                run.sustain(best, sustained_s)
        except KeyboardInterrupt:
            interrupted = True
    report = run.report(complete=not interrupted)
    return replace(report, answer=answers(report, max_auc_loss=max_auc_loss)), interrupted


def _tell(report: Report, page: Path, interrupted: bool) -> int:
    for line in report.answer:
        print(line)
    print(f"report: {page}")
    failures = report.failures
    for line in failures:
        print(f"failed: {line}", file=sys.stderr)
    if interrupted:
        raise KeyboardInterrupt
    return 1 if failures else 0


def check_isas(names: list[str]) -> tuple[str, ...]:
    """Return the instruction sets to measure, each once.

    Raises:
        UsageError: one is unknown, or wider than what this CPU has.
    """
    for name in names:
        if name not in CAPS:
            raise UsageError(f"--isa {name}: unknown; choose of {', '.join(CAPS)}")
        if name == "avx2" and "avx2" not in cpu_flags():
            raise UsageError("--isa avx2: this CPU has no AVX2; choose native or sse42")
    return tuple(dict.fromkeys(names))


def devices_here() -> tuple[str, ...]:
    """Return the devices to measure: the CPU, and every GPU that OpenVINO sees."""
    return ("CPU", *(name for name in ov.Core().available_devices if name.startswith("GPU")))


def match_checkpoints(bundles: Mapping[str, Bundle], paths: list[Path]) -> dict[str, Path]:
    """Return the checkpoint of each bundle that has one among `paths`, by the bundle's name.

    Raises:
        UsageError: one belongs to none of the bundles.
    """
    from train.checkpoint import load_checkpoint

    found: dict[str, Path] = {}
    for path in paths:
        architecture = load_checkpoint(path).contract.architecture
        names = [name for name, bundle in bundles.items() if bundle.contract.architecture == architecture]
        names = [name for name in names if name not in found]
        if not names:
            raise UsageError(f"--checkpoint {path}: a {architecture}, of which there is no other --model")
        found[names[0]] = path.expanduser()
    return found


def compare(
    before: Annotated[Path, typer.Argument(metavar="A.json", help="A report.json, or the folder with one.")],
    after: Annotated[Path, typer.Argument(metavar="B.json", help="The one to hold against it.")],
) -> int:
    """Tell what got faster, slower, bigger or less accurate from report A to B, beyond the noise.

    Exit code 1 where something got worse: usable in CI. Both reports must be of one machine, with 3 rounds or more.
    """
    from benchmarks import compare as comparing

    found = comparing.compare(Report.read(before), Report.read(after))
    for line in comparing.lines(found):
        print(line)
    return 1 if found.worse else 0


def main() -> NoReturn:
    """Start `edge-benchmark`, or `edge-benchmark compare`."""
    if sys.argv[1:2] == ["compare"]:
        del sys.argv[1]
        run_command(compare, "edge-benchmark compare")
    run_command(benchmark, "edge-benchmark")
