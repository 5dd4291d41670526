"""Finding the best setting for this machine: device × precision × streams, measured within a given time.

A device whose golden pictures come out wrong, and a precision that loses too much AUC, are refused before any race. The
others are measured in rounds, A B A B …; after each round those leave that are slower in their best round than the
fastest is in its worst.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.measure.cases import MAX_AUC_LOSS, Case, Engine, Mode
from benchmarks.measure.run import Plan, Run
from benchmarks.results.answer import SPEED, number
from benchmarks.results.schema import Accuracy, LeftOut, Report, Row
from edge_runtime.errors import UsageError
from edge_runtime.model.contract import Framing, Precision
from edge_runtime.model.profile import Profile, new_profile

FACES = 400
"""Faces that accuracy is measured on while tuning, where no other number is asked for."""

MIN_ROUNDS = 2
WITHOUT_FACES = (
    "Finding faces is not part of these times: with the face stage, which this bundle is made for, edge-detect is "
    "slower, so ask for more frames/s than are needed."
)

ALIKE = 0.03
"""Settings whose FPS differ by less are equally fast; the one with less latency is taken."""


@dataclass(frozen=True)
class Wish:
    """What is asked of the setting: within which time it is found, how fast it must be, how much AUC it may cost."""

    seconds: float = 300.0
    target_fps: float | None = None
    max_auc_loss: float = MAX_AUC_LOSS


@dataclass(frozen=True)
class Tuned:
    """The setting that was chosen.

    Attributes:
        row: its measurement.
        accuracy: of its network.
        reached: whether it is as fast as was asked.
    """

    row: Row
    accuracy: Accuracy | None
    reached: bool


def candidates(plan: Plan) -> list[Case]:
    """Return every setting to try for the plan's one bundle; 0 streams leaves their number to OpenVINO."""
    name, bundle = next(iter(plan.bundles.items()))
    cores = os.cpu_count() or 1
    settings = [(Mode.LATENCY, 0), (Mode.THROUGHPUT, 0), *((Mode.THROUGHPUT, n) for n in sorted({1, 2, cores}))]
    return [
        Case(name, Engine.RUNTIME, precision.value, device, mode, "native", streams)
        for device in plan.devices
        for precision in bundle.precisions
        for mode, streams in settings
    ]


def tune(run: Run, wish: Wish, *, now: Callable[[], float] = time.monotonic) -> tuple[Tuned, list[LeftOut]]:
    """Measure a run's cases until the time is over; return the best setting and what was refused.

    Raises:
        UsageError: every setting was refused.
    """
    end = now() + wish.seconds
    run.measure_accuracy()
    reasons = {_network(a): reason for a in run.report().accuracies if (reason := refusal(a, wish.max_auc_loss))}
    racing = [case for case in run.cases if _network_of(case) not in reasons]
    refused = [LeftOut(" ".join(network).upper(), reason) for network, reason in reasons.items()]
    number_of_rounds = 0
    while racing and (number_of_rounds < MIN_ROUNDS or (len(racing) > 1 and now() < end)):
        for case in racing:
            run.measure(case)
        number_of_rounds += 1
        if number_of_rounds >= MIN_ROUNDS:
            racing = still_racing([run.row(case) for case in racing], wish.target_fps)
    measured = [row for case in run.cases if (row := run.row(case)).rounds]
    if not measured:
        raise UsageError("no setting can be taken here: " + "; ".join(f"{left.what}: {left.why}" for left in refused))
    return choose(run.report(), measured, wish), refused


def _network(accuracy: Accuracy) -> tuple[str, str]:
    return (accuracy.precision, accuracy.device)


def _network_of(case: Case) -> tuple[str, str]:
    return (case.precision, case.device)


def refusal(accuracy: Accuracy, max_auc_loss: float) -> str | None:
    """Return why a network may not be taken, or None."""
    if accuracy.failed:
        return accuracy.failed
    if accuracy.golden.startswith("wrong"):
        return f"its golden pictures come out {accuracy.golden}"
    loss = 0.0 if accuracy.auc_change is None else -accuracy.auc_change["value"]
    if loss > max_auc_loss:
        return f"it loses {loss:.3f} of AUC, at most {max_auc_loss:g} is allowed"
    return None


def still_racing(rows: Sequence[Row], target_fps: float | None) -> list[Case]:
    """Return the cases that may still be chosen: those not clearly slower than the fastest, or fast enough."""
    measured = [(row, spread) for row in rows if (spread := row.spread(SPEED))]
    bar = max((spread.low for _, spread in measured), default=0.0)
    if target_fps is not None:
        bar = min(bar, target_fps)
    return [row.case for row, spread in measured if spread.high >= bar and row.failed is None]


def choose(report: Report, rows: Sequence[Row], wish: Wish) -> Tuned:
    """Return the best of measured `rows`.

    With a target: of those that reach it the one with the highest AUC, of these the one with the least latency. Without
    one, or where none reaches it: the fastest, of those that are alike the one with the least latency.
    """
    reaching = [row for row in rows if wish.target_fps is not None and _speed(row) >= wish.target_fps]
    if reaching:
        surest = max(_auc(report, row) for row in reaching)
        kept = [row for row in reaching if _auc(report, row) >= surest]
    else:
        fastest = max(_speed(row) for row in rows)
        kept = [row for row in rows if _speed(row) >= (1.0 - ALIKE) * fastest]
    best = min(kept, key=lambda row: row.median("end_to_end_p95_ms") or float("inf"))
    return Tuned(best, report.accuracy(best.case), bool(reaching) or wish.target_fps is None)


def _speed(row: Row) -> float:
    return row.median(SPEED) or 0.0


def _auc(report: Report, row: Row) -> float:
    accuracy = report.accuracy(row.case)
    return (accuracy.auc if accuracy else None) or 0.0


def profile_of(plan: Plan, tuned: Tuned) -> Profile:
    """Return the profile that `edge-detect` will use."""
    case = tuned.row.case
    return new_profile(
        plan.bundles[case.bundle],
        case.device,
        Precision(case.precision),
        hint=case.mode.value.upper(),
        streams=case.streams,
        fps=round(_speed(tuned.row), 2),
        auc=tuned.accuracy.auc if tuned.accuracy else None,
    )


def words(tuned: Tuned, wish: Wish, framing: Framing = Framing.WHOLE) -> str:
    """Return the choice in one line; `framing` is the bundle's."""
    row = tuned.row
    case, speed, wait = row.case, row.median(SPEED), row.median("end_to_end_p95_ms")
    auc = f", AUC {tuned.accuracy.auc:.3f}" if tuned.accuracy and tuned.accuracy.auc is not None else ""
    streams = f", {case.streams} streams" if case.streams else ""
    line = (
        f"Chosen: {case.precision.upper()} on {case.device}, {case.mode.value}{streams}: {number(speed or 0.0)} "
        f"frames/s from file to verdict, 95 % within {number(wait or 0.0)} ms{auc}."
    )
    if framing is Framing.DETECTED:
        line = f"{line} {WITHOUT_FACES}"
    if tuned.reached:
        return line
    return f"{line} That is less than the {wish.target_fps:g} frames/s asked for; nothing here is faster."


def check(plan: Plan, emulator: str) -> None:
    """Refuse what can't be tuned.

    Raises:
        UsageError: there are several bundles, a cap, or an emulator.
    """
    if len(plan.bundles) != 1:
        raise UsageError("--tune is for one bundle; give one --model")
    if plan.isas != ("native",):
        raise UsageError("--tune measures this machine as it is; leave --isa out")
    if emulator:
        raise UsageError("--tune under an emulator would choose by times that mean nothing")
