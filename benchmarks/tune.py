"""Finds the best setting for this machine, device × precision × streams, within a time limit.

Devices with wrong golden pictures and precisions that lose too much AUC are refused first. The others are measured in
rounds, A B A B …; after each round those drop out that were slower than the fastest in every round.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.measure.cases import Case, Mode
from benchmarks.measure.plan import Plan
from benchmarks.measure.run import Run
from benchmarks.results.answer import SPEED, fastest_row, number, speedup
from benchmarks.results.schema import Accuracy, LeftOut, Report, Row
from edge_runtime.errors import UsageError
from edge_runtime.model.contract import Framing, Precision
from edge_runtime.model.profile import Profile, new_profile

DEFAULT_MINUTES = 5.0
MIN_ROUNDS = 2
WITHOUT_FACES = (
    "These times do not include finding faces: with the face stage, which this bundle is made for, edge-detect is "
    "slower, so give a higher --target-fps than you need."
)

SAME_SPEED = 0.03
"""Settings whose FPS differ by less are equally fast; the one with the lower latency is chosen."""


@dataclass(frozen=True)
class Tuned:
    """The chosen setting; `reached` is whether it reaches `--target-fps`, or no target was given."""

    row: Row
    accuracy: Accuracy | None
    reached: bool


def check(plan: Plan, emulator: str) -> None:
    """Check that a plan can be tuned.

    Raises:
        UsageError: it has several bundles or a cap, or runs under an emulator.
    """
    if len(plan.bundles) != 1:
        raise UsageError("--tune takes one bundle; give one --model")
    if plan.options.isas != ("native",):
        raise UsageError("--tune measures this machine as it is; remove --isa")
    if emulator:
        raise UsageError("--tune does not work under an emulator, where times mean nothing; run it on the machine")


def candidates(plan: Plan) -> list[Case]:
    """Return every setting to try for the plan's bundle; with 0 streams OpenVINO decides their number."""
    name, bundle = next(iter(plan.bundles.items()))
    cores = os.cpu_count() or 1
    settings = [(Mode.LATENCY, 0), (Mode.THROUGHPUT, 0), *((Mode.THROUGHPUT, n) for n in sorted({1, 2, cores}))]
    return [
        Case(name, precision.value, mode, device=device, streams=streams)
        for device in plan.devices
        for precision in bundle.precisions
        for mode, streams in settings
    ]


def tune(run: Run, *, now: Callable[[], float] = time.monotonic) -> tuple[Tuned, list[LeftOut]]:
    """Measure a run's cases until the time is over; return the best setting and what was refused.

    Raises:
        UsageError: every setting was refused.
    """
    options = run.plan.options
    end = now() + 60.0 * (options.minutes or DEFAULT_MINUTES)
    run.measure_accuracy()
    reasons = {
        (accuracy.precision, accuracy.device): reason
        for accuracy in run.report().accuracies
        if (reason := accuracy.reason_to_refuse(options.max_auc_loss))
    }
    refused = [LeftOut(" ".join(network).upper(), reason) for network, reason in reasons.items()]
    racing = [case for case in run.cases if (case.precision, case.device) not in reasons]
    rounds = 0
    while racing and (rounds < MIN_ROUNDS or (len(racing) > 1 and now() < end)):
        for case in racing:
            run.measure(case)
        rounds += 1
        if rounds >= MIN_ROUNDS:
            racing = still_racing([run.row(case) for case in racing], options.target_fps)
    measured = [row for case in run.cases if (row := run.row(case)).rounds]
    if not measured:
        raise UsageError("no setting works here: " + "; ".join(f"{left.what}: {left.why}" for left in refused))
    return choose(run.report(), measured, options.target_fps), refused


def still_racing(rows: Sequence[Row], target_fps: float | None) -> list[Case]:
    """Return the cases that may still be chosen: fast enough, or in some round about as fast as the fastest."""
    fastest = fastest_row(rows)

    def fits(row: Row) -> bool:
        reaches = target_fps is not None and max(row.values(SPEED), default=0.0) >= target_fps
        return reaches or (fastest is not None and speedup(row, fastest).high >= 1.0 - SAME_SPEED)

    return [row.case for row in rows if row.failed is None and fits(row)]


def choose(report: Report, rows: Sequence[Row], target_fps: float | None) -> Tuned:
    """Return the best of the measured `rows`.

    Among those that reach the target: the highest AUC, then the lowest latency. If none does, or without a target: the
    fastest, among equally fast ones the lowest latency.
    """

    def speed(row: Row) -> float:
        return row.median(SPEED) or 0.0

    def auc(row: Row) -> float:
        accuracy = report.accuracy(row.case)
        return (accuracy.auc if accuracy else None) or 0.0

    reaching = [row for row in rows if target_fps is not None and speed(row) >= target_fps]
    if reaching:
        highest = max(map(auc, reaching))
        kept = [row for row in reaching if auc(row) >= highest]
    else:
        fastest = fastest_row(rows) or rows[0]
        kept = [row for row in rows if row is fastest or speedup(row, fastest).median >= 1.0 - SAME_SPEED]
    best = min(kept, key=lambda row: row.median("end_to_end_p95_ms") or float("inf"))
    return Tuned(best, report.accuracy(best.case), reached=bool(reaching) or target_fps is None)


def profile_of(plan: Plan, tuned: Tuned) -> Profile:
    """Return the profile for `edge-detect`."""
    case = tuned.row.case
    return new_profile(
        plan.bundles[case.bundle],
        case.device,
        Precision(case.precision),
        hint=case.mode.value.upper(),
        streams=case.streams,
        fps=round(tuned.row.median(SPEED) or 0.0, 2),
        auc=tuned.accuracy.auc if tuned.accuracy else None,
    )


def words(plan: Plan, tuned: Tuned) -> str:
    """Return the choice in one line."""
    row, case = tuned.row, tuned.row.case
    auc = f", AUC {tuned.accuracy.auc:.3f}" if tuned.accuracy and tuned.accuracy.auc is not None else ""
    streams = f", {case.streams} stream{'s' * (case.streams > 1)}" if case.streams else ""
    line = (
        f"Chosen: {case.precision.upper()} on {case.device}, {case.mode.value}{streams}: "
        f"{number(row.median(SPEED) or 0.0)} frames/s from file to verdict, 95 % within "
        f"{number(row.median('end_to_end_p95_ms') or 0.0)} ms{auc}."
    )
    if plan.bundles[case.bundle].contract.framing is Framing.DETECTED:
        line = f"{line} {WITHOUT_FACES}"
    if tuned.reached:
        return line
    return f"{line} That is less than the --target-fps of {plan.options.target_fps:g}; no setting is faster."
