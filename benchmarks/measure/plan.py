"""A session of `edge-benchmark`: what was asked becomes a plan, is measured with progress shown, and written down."""

import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from benchmarks import tune as tuning
from benchmarks.measure.accuracy import choose_pictures
from benchmarks.measure.cases import Limits
from benchmarks.measure.circumstances import Circumstances
from benchmarks.measure.run import Advance, Plan, Run, name_bundles, unused_pictures
from benchmarks.results import report as reporting
from benchmarks.results.answer import answers, fastest, trained_on
from benchmarks.results.schema import Report
from board_setup.isa import CAPS, cpu_flags
from edge_runtime.errors import DataError, EdgeError, UsageError
from edge_runtime.inference.core import openvino_core
from edge_runtime.model.bundle import Bundle, find_bundle
from edge_runtime.model.profile import write_profile
from train.data.build import load_data
from train.data.catalog import left_out_lines
from train.data.sample import take_readable

TUNING_MINUTES = 5.0

LINE_EVERY_S = 60.0
"""Where there is no terminal for a bar, a line that often says how far it is."""


@dataclass(frozen=True)
class Request:
    """What was asked for; the options of the command, by their names."""

    data: Path
    out: Path
    models: tuple[Path, ...]
    checkpoints: tuple[Path, ...]
    isas: tuple[str, ...]
    rounds: int
    seconds: float
    frames: int
    pictures: int | None
    tune: bool
    target_fps: float | None
    max_auc_loss: float
    minutes: float | None
    baselines: bool
    delay: float = 0.0


def session(request: Request) -> int:
    """Do what was asked; return the exit code.

    Raises:
        EdgeError: it can't be started.
    """
    console = Console(stderr=True)
    plan = make_plan(request, console)
    around = Circumstances.here(shlex.join(["edge-benchmark", *sys.argv[1:]]))
    if request.tune:
        return _tune(plan, around, request, console)
    report, interrupted = _measure(plan, around, request, console)
    return _tell(plan, report, reporting.write(report, request.out), interrupted)


def make_plan(request: Request, console: Console) -> Plan:
    """Return what to measure.

    Raises:
        EdgeError: a bundle, the faces, a checkpoint or an instruction set can't be used.
    """
    isas = check_isas(request.isas)
    bundles = name_bundles([Bundle.open(path) for path in request.models] or [find_bundle()])
    with _progress(console) as progress:
        task = progress.add_task("reading faces", total=None)
        catalog = load_data(request.data, advance=lambda done: progress.advance(task, done))
    records, gone = take_readable(
        choose_pictures(catalog, request.pictures or (tuning.FACES if request.tune else None))
    )
    if not records:
        raise DataError(f"{request.data}: none of the faces to measure on can be read; run prepare-faces again")
    limits = Limits(request.seconds, request.frames, min(request.frames, Limits().warmup_frames), request.delay)
    return Plan(
        bundles,
        records,
        match_checkpoints(bundles, request.checkpoints),
        devices_here(),
        isas,
        request.rounds,
        limits,
        request.baselines and not request.tune,
        catalog.fingerprint,
        request.max_auc_loss,
        (*catalog.quarantine, *gone),
    )


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)


def _stepwise(progress: Progress, task: TaskID) -> Advance:
    """Return what is told of every step: it moves the bar, or prints a line now and then where there is none."""
    printed = time.monotonic()

    def advance(text: str) -> None:
        nonlocal printed
        progress.update(task, description=text, advance=1)
        if progress.console.is_terminal or time.monotonic() - printed < LINE_EVERY_S:
            return
        printed = time.monotonic()
        shown = progress.tasks[task]
        of = f" of {shown.total:.0f}" if shown.total else ""
        print(f"{shown.completed:.0f}{of} done, now {text}", file=sys.stderr, flush=True)

    return advance


def _tune(plan: Plan, around: Circumstances, request: Request, console: Console) -> int:
    tuning.check(plan, around.emulator)
    wish = tuning.Wish(60.0 * (request.minutes or TUNING_MINUTES), request.target_fps, request.max_auc_loss)
    with _progress(console) as progress:
        task = progress.add_task("starting", total=None)
        run = Run(
            plan,
            around,
            cases=tuning.candidates(plan),
            advance=_stepwise(progress, task),
        )
        try:
            chosen, refused = tuning.tune(run, wish)
        except (KeyboardInterrupt, EdgeError):
            _keep(run, request.out)
            raise
    path = write_profile(tuning.profile_of(plan, chosen))
    framing = plan.bundles[chosen.row.case.bundle].contract.framing
    answer = (
        tuning.words(chosen, wish, framing),
        f"edge-detect uses this from now on with this bundle on this machine ({path}).",
    )
    report = run.report()
    report = replace(report, answer=(*answer, *trained_on(report)), left_out=(*refused, *unused_pictures(plan)))
    code = _tell(plan, report, reporting.write(report, request.out), interrupted=False)
    return code if chosen.reached else 1


def _keep(run: Run, out: Path) -> None:
    """Write what a tuning has measured before it ended without a choice."""
    report = run.report(complete=False)
    report = replace(report, answer=("No setting was chosen: edge-detect goes on as before.", *answers(report)))
    print(f"no setting was chosen; what was measured: {reporting.write(report, out)}", file=sys.stderr)


def _measure(plan: Plan, around: Circumstances, request: Request, console: Console) -> tuple[Report, bool]:
    """Measure a plan; return what was found, and whether it was interrupted."""
    interrupted = False
    with _progress(console) as progress:
        task = progress.add_task("starting")
        run = Run(plan, around, advance=_stepwise(progress, task))
        progress.update(task, total=run.steps, completed=-1)
        try:
            run.measure_rounds()
            run.measure_accuracy()
            best = fastest(run.report())
            if request.minutes and best is not None:
                run.sustain(best, 60.0 * request.minutes)
        except KeyboardInterrupt:
            interrupted = True
    report = run.report(complete=not interrupted)
    return replace(report, answer=answers(report)), interrupted


def _tell(plan: Plan, report: Report, page: Path, interrupted: bool) -> int:
    for line in report.answer:
        print(line)
    print(f"report: {page}")
    failures = report.failures
    for line in failures:
        print(f"failed: {line}", file=sys.stderr)
    for line in left_out_lines([(file.path, file.reason) for file in plan.unused]):
        print(line, file=sys.stderr)
    if interrupted:
        raise KeyboardInterrupt
    return 1 if failures or any(file.broken for file in plan.unused) else 0


def check_isas(names: Sequence[str]) -> tuple[str, ...]:
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
    return ("CPU", *(name for name in openvino_core().available_devices if name.startswith("GPU")))


def match_checkpoints(bundles: Mapping[str, Bundle], paths: Sequence[Path]) -> dict[str, Path]:
    """Return the checkpoint of each bundle that has one among `paths`, by the bundle's name.

    Raises:
        UsageError: one belongs to none of the bundles.
    """
    if not paths:
        # Where there is no PyTorch, on the board, none are given.
        return {}
    from train.models.checkpoint import load_checkpoint

    found: dict[str, Path] = {}
    for path in paths:
        architecture = load_checkpoint(path).contract.architecture
        names = [name for name, bundle in bundles.items() if bundle.contract.architecture == architecture]
        names = [name for name in names if name not in found]
        if not names:
            raise UsageError(f"--checkpoint {path}: a {architecture}, of which there is no other --model")
        found[names[0]] = path.expanduser()
    return found
