"""A session of `edge-benchmark`: plans, measures with a progress bar, writes the report and prints the answer."""

import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from benchmarks import tune
from benchmarks.measure.circumstances import Circumstances
from benchmarks.measure.plan import Plan, left_out_pictures, make_plan
from benchmarks.measure.run import Advance, Run
from benchmarks.options import Options
from benchmarks.results.answer import answers, fastest, trained_on
from benchmarks.results.report import write
from benchmarks.results.schema import Report
from edge_runtime.errors import EdgeError, UsageError
from edge_runtime.model.bundle import MANIFEST
from edge_runtime.model.profile import write_profile
from edge_runtime.printable import printable
from train.commands.output import output_folder
from train.data.catalog import left_out_lines

LINE_EVERY_S = 60.0
"""Without a terminal a progress line is printed this often."""


def run_session(options: Options) -> int:
    """Do what `options` ask for; return the exit code.

    Raises:
        EdgeError: it can't be started.
    """
    out = output_folder(options.out)
    if (out / MANIFEST).exists() or out.resolve() == options.data.resolve():
        raise UsageError(f"--out {out}: holds the bundle or faces to measure; choose another folder")
    with _progress() as progress:
        task = progress.add_task("reading faces", total=None)
        plan = make_plan(options, lambda done: progress.advance(task, done))
    around = Circumstances.here(shlex.join(["edge-benchmark", *sys.argv[1:]]))
    return _tune(plan, around, out) if options.tune else _measure(plan, around, out)


@contextmanager
def _progress() -> Iterator[Progress]:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        yield progress


@contextmanager
def step_bar() -> Iterator[Advance]:
    """Yield a function that shows a step, for work with an unknown number of them."""
    with _progress() as progress:
        yield _advance_by_step(progress, progress.add_task("starting", total=None))


def _advance_by_step(progress: Progress, task: TaskID) -> Advance:
    """Return a function that moves the progress bar, or without a terminal prints a line now and then."""
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


def _tune(plan: Plan, around: Circumstances, out: Path) -> int:
    tune.check(plan, around.emulator)
    with step_bar() as advance:
        run = Run(plan, around, cases=tune.candidates(plan), advance=advance)
        try:
            chosen, refused = tune.tune(run)
        except (KeyboardInterrupt, EdgeError):
            report = run.report(complete=False)
            no_choice = "No setting was chosen: edge-detect keeps its current one."
            page = _write(replace(report, answer=(no_choice, *answers(report))), out)
            print(f"no setting was chosen; what was measured: {page}", file=sys.stderr)
            raise
    path = write_profile(tune.profile_of(plan, chosen))
    report = run.report()
    answer = (
        tune.words(plan, chosen),
        f"edge-detect now uses this setting with this bundle on this machine ({path}).",
        *trained_on(report),
    )
    report = replace(report, answer=answer, left_out=(*refused, *left_out_pictures(plan)))
    code = _finish(plan, report, out)
    return code if chosen.reached else 1


def _measure(plan: Plan, around: Circumstances, out: Path) -> int:
    complete = True
    with _progress() as progress:
        task = progress.add_task("starting")
        run = Run(plan, around, advance=_advance_by_step(progress, task))
        progress.update(task, total=run.steps, completed=-1)
        try:
            run.measure_rounds()
            run.measure_slow_rounds_again()
            run.measure_accuracy()
            best = fastest(run.report())
            if plan.options.minutes and best is not None:
                run.sustain(best, 60.0 * plan.options.minutes)
        except KeyboardInterrupt:
            complete = False
    report = run.report(complete=complete)
    report = replace(report, answer=answers(report))
    code = _finish(plan, report, out)
    if not complete:
        raise KeyboardInterrupt
    return code


def _finish(plan: Plan, report: Report, out: Path) -> int:
    """Print the answer, write the report and print what failed; return the exit code."""
    for line in report.answer:
        print(printable(line))
    print(f"report: {_write(report, out)}")
    for line in report.failures:
        print(printable(f"failed: {line}"), file=sys.stderr)
    for line in left_out_lines([(file.path, file.reason) for file in plan.unused]):
        print(line, file=sys.stderr)
    return 1 if report.failures or any(file.broken for file in plan.unused) else 0


def _write(report: Report, out: Path) -> Path:
    try:
        return write(report, out)
    except OSError as error:
        raise UsageError(f"--out {out}: can't be written ({error.strerror or error}); choose another folder") from None
