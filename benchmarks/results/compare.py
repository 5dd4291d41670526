"""Two reports side by side: what got faster, slower, bigger or less accurate beyond the noise, or runs no longer.

Each round is one independent sample of a figure, taken in a process of its own, so the spread between rounds is the
noise. For each figure the logarithms of both reports' rounds are held against each other by Welch's t-test (unequal
variances) against a shift of at least a floor: FLOOR, and as much again as the machine's own pace differs (a fixed
piece of arithmetic that is timed before every measurement), since what slows that is not this code. All figures are
judged together: Benjamini and Hochberg's procedure (1995) keeps the share of false alarms among what is called a
change below LEVEL, and with nothing changed at all it keeps the chance of any alarm below LEVEL.
"""

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from benchmarks.results.schema import Accuracy, Report, Row
from edge_runtime.errors import UsageError

FLOOR = 0.03
"""Relative difference below which nothing is called a change, however sure it is."""

LEVEL = 0.05
"""Share of false alarms that is allowed among the changes called."""

MIN_ROUNDS = 3

FASTER_IS_MORE = {"model_fps": True, "end_to_end_fps": True, "first_verdict_s": False, "rss_peak_mb": False}
"""The figures that are compared, and whether more of them is better."""

NAMES = {
    "model_fps": "network alone, frames/s",
    "end_to_end_fps": "file to verdict, frames/s",
    "first_verdict_s": "first verdict, s",
    "rss_peak_mb": "memory peak, MB",
}

BETTER, WORSE, SAME = "better", "worse", "no difference"


@dataclass(frozen=True)
class Change:
    """How one figure of one case differs between two reports.

    Attributes:
        case: which case.
        figure: a key of NAMES, or `auc` or `golden`, or `runs` for what ran in the first report and not in the second.
        before, after: geometric means over the rounds, or the values.
        ratio, low, high: after ÷ before with its interval of 95 %; nan for accuracy.
        p: probability of such a difference by chance, where the true one is within the floor.
        verdict: better, worse, or no difference.
        why: in words, where there is more to say.
    """

    case: str
    figure: str
    before: float
    after: float
    ratio: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    verdict: str = SAME
    why: str = ""


@dataclass(frozen=True)
class Comparison:
    """What two reports differ in.

    Attributes:
        changes: every figure that both have.
        pace: how fast the machine itself was in the second report, against the first.
        circumstances: what ran differently, a line each; it may be the reason.
        only_after: cases that only the second has.
    """

    changes: tuple[Change, ...]
    pace: float
    circumstances: tuple[str, ...]
    only_after: tuple[str, ...]

    @property
    def worse(self) -> list[Change]:
        """Return the regressions."""
        return [change for change in self.changes if change.verdict == WORSE]

    @property
    def better(self) -> list[Change]:
        """Return what got better."""
        return [change for change in self.changes if change.verdict == BETTER]


def compare(before: Report, after: Report) -> Comparison:
    """Compare two reports of one machine.

    Raises:
        UsageError: they are of different machines, one ran under an emulator, or they have no case in common.
    """
    _check(before, after)
    old, new = ({row.case.key: row for row in report.rows if row.rounds} for report in (before, after))
    pace = _pace(after) / _pace(before)
    floor = math.log1p(FLOOR) + abs(math.log(pace))
    speeds = [change for key in old if key in new for change in _figures(old[key], new[key], floor)]
    compared = (*_judged(speeds), *_accuracies(before, after))
    if not compared and not any(row.failed for row in after.rows):
        raise UsageError("the two reports have no case in common; make both with the same options")
    changes = (*compared, *_lost(before, after))
    only_after = tuple(key for key in new if key not in old)
    return Comparison(changes, pace, tuple(_circumstances(before, after)), only_after)


def _check(before: Report, after: Report) -> None:
    one, other = before.circumstances, after.circumstances
    if one.emulator or other.emulator:
        raise UsageError("a report was made under an emulator: its times mean nothing and are not compared")
    if one.processor != other.processor:
        raise UsageError(
            f"the reports are of different machines ({one.processor}; {other.processor}); compare two of one machine"
        )


def _pace(report: Report) -> float:
    found = [value for row in report.rows for value in row.values("pace")]
    return statistics.median(found) if found else 1.0


def _figures(before: Row, after: Row, floor: float) -> Iterator[Change]:
    for figure in FASTER_IS_MORE:
        old, new = before.values(figure), after.values(figure)
        if min(len(old), len(new)) >= MIN_ROUNDS:
            yield weigh(before.case.key, figure, old, new, floor)


def weigh(case: str, figure: str, before: Sequence[float], after: Sequence[float], floor: float) -> Change:
    """Return how `after` differs from `before`, each the rounds of one figure, all above 0; not judged yet.

    `floor` is the difference of logarithms up to which nothing is called a change.
    """
    old, new = np.log(before), np.log(after)
    shift = float(new.mean() - old.mean())
    error, freedom = _welch(old, new)
    reach = float(stats.t.ppf(0.975, freedom)) * error
    beyond = (abs(shift) - floor) / error
    return Change(
        case,
        figure,
        float(np.exp(old.mean())),
        float(np.exp(new.mean())),
        math.exp(shift),
        math.exp(shift - reach),
        math.exp(shift + reach),
        float(min(1.0, 2.0 * stats.t.sf(beyond, freedom))),
    )


def _welch(old: np.ndarray, new: np.ndarray) -> tuple[float, float]:
    """Return the standard error of a difference of means and Welch and Satterthwaite's degrees of freedom."""
    # A millionth: rounds that agree in every digit (memory does) have no spread, but divide by none.
    parts = [max(float(values.var(ddof=1)), 1e-12) / len(values) for values in (old, new)]
    freedom = sum(parts) ** 2 / sum(part**2 / (len(v) - 1) for part, v in zip(parts, (old, new), strict=True))
    return math.sqrt(sum(parts)), freedom


def _judged(changes: Sequence[Change]) -> list[Change]:
    if not changes:
        return []
    adjusted = stats.false_discovery_control([change.p for change in changes], method="bh")
    return [_with_verdict(change, float(p)) for change, p in zip(changes, adjusted, strict=True)]


def _with_verdict(change: Change, p: float) -> Change:
    if p >= LEVEL:
        return change
    gained = (change.ratio > 1.0) == FASTER_IS_MORE[change.figure]
    return Change(**{**vars(change), "verdict": BETTER if gained else WORSE})


def _accuracies(before: Report, after: Report) -> Iterator[Change]:
    old, new = ({_place(a): a for a in report.accuracies if a.failed is None} for report in (before, after))
    same_faces = before.data["fingerprint"] == after.data["fingerprint"] and before.data["faces"] == after.data["faces"]
    for place in (place for place in old if place in new):
        if same_faces:
            yield _auc(place, old[place], new[place])
        if new[place].golden.startswith("wrong") and not old[place].golden.startswith("wrong"):
            yield Change(place, "golden", 1.0, 0.0, verdict=WORSE)


def _place(accuracy: Accuracy) -> str:
    return "/".join((accuracy.bundle, accuracy.precision, accuracy.device, accuracy.isa))


def _lost(before: Report, after: Report) -> Iterator[Change]:
    """Yield what ran in the first report and failed or is missing in the second: a case, or a network's accuracy."""
    speeds = {row.case.key: row.failed for row in after.rows if row.failed or not row.rounds}
    ran = {row.case.key for row in after.rows if row.rounds and not row.failed}
    for key in (row.case.key for row in before.rows if row.rounds and not row.failed):
        if key not in ran:
            yield Change(key, "runs", 1.0, 0.0, verdict=WORSE, why=speeds.get(key) or "not measured")
    networks = {_place(accuracy): accuracy.failed for accuracy in after.accuracies}
    for place in (_place(accuracy) for accuracy in before.accuracies if accuracy.failed is None):
        if networks.get(place, "not measured") is not None:
            why = f"its accuracy: {networks.get(place, 'not measured')}"
            yield Change(place, "runs", 1.0, 0.0, verdict=WORSE, why=why)


def _auc(place: str, before: Accuracy, after: Accuracy) -> Change:
    """Judge AUC on the same faces: outside of the other's interval is a change."""
    old, new = before.figures["auc"], after.figures["auc"]
    verdict = WORSE if new["value"] < old["low"] else BETTER if new["value"] > old["high"] else SAME
    return Change(place, "auc", old["value"], new["value"], verdict=verdict)


def _circumstances(before: Report, after: Report) -> Iterator[str]:
    names = ("commit", "isa", "kernel", "python", "governor", "turbo", "packages", "drivers", "threads")
    for name in names:
        old, new = getattr(before.circumstances, name), getattr(after.circumstances, name)
        if old != new:
            yield f"{name}: {_text(old)} → {_text(new)}"
    for name in ("rounds", "seconds", "frames", "delay"):
        first, second = (report.settings.get(name, 0) for report in (before, after))
        if first != second:
            yield f"{name}: {first} → {second}"
    old_bundles, new_bundles = ({b.name: b.sha256[:12] for b in report.bundles} for report in (before, after))
    for name in old_bundles.keys() & new_bundles.keys():
        if old_bundles[name] != new_bundles[name]:
            yield f"bundle {name}: {old_bundles[name]} → {new_bundles[name]}"
    for name, report in (("first", before), ("second", after)):
        if report.busy and report.foreign_load is not None:
            yield f"the {name} was made on a busy machine (others used {report.foreign_load.median:.0%})"


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {item}" for name, item in value.items()) or "none"
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def lines(found: Comparison) -> Iterator[str]:
    """Return a comparison in words, the answer first."""
    yield _answer(found)
    for change in (*found.worse, *found.better):
        yield f"  {change.verdict}: {change.case}: {_change(change)}"
    if abs(found.pace - 1.0) >= 0.01:
        yield f"  the machine's own pace: {100 * (found.pace - 1):+.1f} % in the second, not held against the code"
    for line in found.circumstances:
        yield f"  differs: {line}"
    for case in found.only_after:
        yield f"  only in the second: {case}"


def _answer(found: Comparison) -> str:
    worse, better = len(found.worse), len(found.better)
    if not worse and not better:
        return f"No difference beyond the noise in {len(found.changes)} figures."
    return f"{worse} worse, {better} better beyond the noise, of {len(found.changes)} figures."


def _change(change: Change) -> str:
    if change.figure == "runs":
        return f"runs no longer ({change.why})"
    if change.figure == "golden":
        return "golden pictures come out wrong now"
    if change.figure == "auc":
        return f"AUC {change.before:.3f} → {change.after:.3f}"
    percent = f"{100 * (change.ratio - 1):+.1f} % ({100 * (change.low - 1):+.1f} to {100 * (change.high - 1):+.1f})"
    return f"{NAMES[change.figure]}: {change.before:.4g} → {change.after:.4g}, {percent}"
