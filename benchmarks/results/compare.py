"""Compares two reports: what got faster, slower, larger or less accurate beyond the noise, or no longer runs.

Each round is an independent sample of a figure, measured in its own process, so the spread between rounds is the
noise. For each figure Welch's t-test (unequal variances) on the logarithms of both reports' rounds looks for a shift
larger than a floor: FLOOR, plus the difference of the machine's own pace (a fixed matrix product timed before every
measurement), because what slows that is not this code. Benjamini and Hochberg's procedure (1995) over all figures keeps
the share of false alarms among the reported changes below LEVEL; if nothing changed at all, it keeps the probability of
any alarm below LEVEL.
"""

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
from scipy import stats

from benchmarks.results.schema import Accuracy, GoldenState, Report, Row
from edge_runtime.errors import UsageError

FLOOR = 0.03
"""Relative difference below which nothing counts as a change, however significant it is."""

LEVEL = 0.05
"""Allowed share of false alarms among the reported changes."""

MIN_ROUNDS = 3

HIGHER_IS_BETTER = {"model_fps": True, "end_to_end_fps": True, "first_verdict_s": False, "rss_peak_mb": False}
"""The figures that are compared."""

NAMES = {
    "model_fps": "network alone, frames/s",
    "end_to_end_fps": "file to verdict, frames/s",
    "first_verdict_s": "time to first verdict, s",
    "rss_peak_mb": "peak memory, MB",
}


class Kind(str, Enum):
    """What kind of difference a change is."""

    FIGURE = "figure"
    AUC = "AUC"
    GOLDEN = "golden pictures"
    LOST = "no longer runs"


class Direction(str, Enum):
    """Whether a change is significant, and in which direction."""

    BETTER = "better"
    WORSE = "worse"
    SAME = "no difference"


@dataclass(frozen=True)
class Change:
    """How one figure of one case differs between two reports.

    Attributes:
        case: a case's key, or a network.
        figure: a key of NAMES for a FIGURE.
        before, after: geometric means over the rounds, or the AUC.
        ratio, low, high: after ÷ before with its 95 % interval.
        p: probability of such a difference by chance if the true one is within the floor.
        reason: why it no longer runs.
    """

    case: str
    kind: Kind
    figure: str = ""
    before: float = math.nan
    after: float = math.nan
    ratio: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    direction: Direction = Direction.SAME
    reason: str = ""

    @property
    def gained(self) -> bool:
        """Whether the figure moved in the direction that is better."""
        return (self.ratio > 1.0) == HIGHER_IS_BETTER[self.figure]


@dataclass(frozen=True)
class Comparison:
    """The differences between two reports, in figures and in circumstances (one line each).

    `pace` is how fast the machine itself was in the second report, relative to the first.
    """

    changes: tuple[Change, ...]
    pace: float
    circumstances: tuple[str, ...]
    only_after: tuple[str, ...]

    @property
    def worse(self) -> list[Change]:
        """The regressions."""
        return [change for change in self.changes if change.direction is Direction.WORSE]

    @property
    def better(self) -> list[Change]:
        """The improvements."""
        return [change for change in self.changes if change.direction is Direction.BETTER]


def compare(before: Report, after: Report) -> Comparison:
    """Compare two reports of one machine.

    Raises:
        UsageError: they are from different machines, one ran under an emulator, or they have no case in common.
    """
    one, other = before.circumstances, after.circumstances
    if one.emulator or other.emulator:
        raise UsageError("a report was made under an emulator: its times mean nothing and can't be compared")
    if one.processor != other.processor:
        raise UsageError(
            f"the reports are of different machines ({one.processor}; {other.processor}); compare two of one machine"
        )
    old, new = ({row.case.key: row for row in report.rows if row.rounds} for report in (before, after))
    pace = _pace(after) / _pace(before)
    floor = math.log1p(FLOOR) + abs(math.log(pace))
    speeds = [
        weigh(key, figure, was, now, floor)
        for key in old
        if key in new
        for figure in HIGHER_IS_BETTER
        if min(len(was := _usable(old[key], figure)), len(now := _usable(new[key], figure))) >= MIN_ROUNDS
    ]
    # The procedure refuses an empty list.
    adjusted = stats.false_discovery_control([change.p for change in speeds], method="bh") if speeds else ()
    judged = [
        replace(change, direction=Direction.BETTER if change.gained else Direction.WORSE) if p < LEVEL else change
        for change, p in zip(speeds, adjusted, strict=True)
    ]
    if not speeds and not any(row.failed for row in after.rows):
        raise UsageError(f"the reports have no case with {MIN_ROUNDS} rounds in common; use the same options for both")
    return Comparison(
        changes=(*judged, *_accuracies(before, after), *_lost(before, after)),
        pace=pace,
        circumstances=tuple(_circumstances(before, after)),
        only_after=tuple(key for key in new if key not in old),
    )


def _pace(report: Report) -> float:
    found = [value for row in report.rows for value in _usable(row, "pace")]
    return statistics.median(found) if found else 1.0


def _usable(row: Row, figure: str) -> list[float]:
    """Return the values that have a logarithm; a report that was edited or damaged may have others."""
    return [value for value in row.values(figure) if 0 < value < math.inf]


def weigh(case: str, figure: str, before: Sequence[float], after: Sequence[float], floor: float) -> Change:
    """Return how `after` differs from `before`, each the rounds of one figure, all above 0; the direction is left open.

    `floor` is the difference of logarithms up to which nothing counts as a change.
    """
    old, new = np.log(before), np.log(after)
    shift = float(new.mean() - old.mean())
    # Not below a millionth: rounds that agree in every digit (memory does) have no variance.
    parts = [max(float(values.var(ddof=1)), 1e-12) / len(values) for values in (old, new)]
    error = math.sqrt(sum(parts))
    # Welch and Satterthwaite's degrees of freedom.
    freedom = sum(parts) ** 2 / sum(part**2 / (len(v) - 1) for part, v in zip(parts, (old, new), strict=True))
    reach = float(stats.t.ppf(0.975, freedom)) * error
    beyond = (abs(shift) - floor) / error
    return Change(
        case=case,
        kind=Kind.FIGURE,
        figure=figure,
        before=float(np.exp(old.mean())),
        after=float(np.exp(new.mean())),
        ratio=math.exp(shift),
        low=math.exp(shift - reach),
        high=math.exp(shift + reach),
        p=float(min(1.0, 2.0 * stats.t.sf(beyond, freedom))),
    )


def _accuracies(before: Report, after: Report) -> Iterator[Change]:
    """Compare AUC on the same faces (a change leaves the first report's interval) and golden pictures."""
    old, new = ({_network(a): a for a in report.accuracies if a.failed is None} for report in (before, after))
    same_faces = (before.data.fingerprint, before.data.faces) == (after.data.fingerprint, after.data.faces)
    for network in (network for network in old if network in new):
        was, now = old[network].figures.get("auc"), new[network].figures.get("auc")
        if same_faces and was and now:
            lower, higher = now["value"] < was["low"], now["value"] > was["high"]
            direction = Direction.WORSE if lower else Direction.BETTER if higher else Direction.SAME
            yield Change(network, Kind.AUC, before=was["value"], after=now["value"], direction=direction)
        if new[network].golden is GoldenState.WRONG and old[network].golden is not GoldenState.WRONG:
            yield Change(network, Kind.GOLDEN, direction=Direction.WORSE)


def _network(accuracy: Accuracy) -> str:
    return "/".join((accuracy.bundle, accuracy.precision, accuracy.device, accuracy.isa))


def _lost(before: Report, after: Report) -> Iterator[Change]:
    """Yield what ran in the first report and failed or is missing in the second: a case, or a network's accuracy."""
    ran = {row.case.key for row in after.rows if row.rounds and not row.failed}
    failed = {row.case.key: row.failed for row in after.rows}
    for key in (row.case.key for row in before.rows if row.rounds and not row.failed):
        if key not in ran:
            yield Change(key, Kind.LOST, direction=Direction.WORSE, reason=failed.get(key) or "not measured")
    networks = {_network(accuracy): accuracy.failed for accuracy in after.accuracies}
    for network in (_network(accuracy) for accuracy in before.accuracies if accuracy.failed is None):
        if reason := networks.get(network, "not measured"):
            yield Change(network, Kind.LOST, direction=Direction.WORSE, reason=f"its accuracy: {reason}")


def _circumstances(before: Report, after: Report) -> Iterator[str]:
    for name in ("commit", "isa", "kernel", "python", "governor", "turbo", "packages", "drivers", "threads"):
        old, new = getattr(before.circumstances, name), getattr(after.circumstances, name)
        if old != new:
            yield f"{name}: {_text(old)} → {_text(new)}"
    for name in ("rounds", "seconds", "frames", "delay"):
        first, second = (getattr(report.settings, name) for report in (before, after))
        if first != second:
            yield f"{name}: {first} → {second}"
    old_bundles, new_bundles = ({b.name: b.sha256[:12] for b in report.bundles} for report in (before, after))
    for name in old_bundles.keys() & new_bundles.keys():
        if old_bundles[name] != new_bundles[name]:
            yield f"bundle {name}: {old_bundles[name]} → {new_bundles[name]}"
    for name, report in (("first", before), ("second", after)):
        if report.busy and report.foreign_load is not None:
            yield f"the {name} report was made on a busy machine (others used {report.foreign_load.median:.0%})"


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {item}" for name, item in value.items()) or "none"
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def lines(found: Comparison) -> Iterator[str]:
    """Yield a comparison in words, the result first."""
    worse, better, count = len(found.worse), len(found.better), len(found.changes)
    figures = f"{count} figure{'s' * (count != 1)}"
    if worse or better:
        yield f"{worse} worse, {better} better beyond the noise, of {figures}."
    else:
        yield f"No difference beyond the noise in {figures}."
    for change in (*found.worse, *found.better):
        yield f"  {change.direction.value}: {change.case}: {_words(change)}"
    if abs(found.pace - 1.0) >= 0.01:
        percent = 100 * (found.pace - 1)
        yield f"  the machine's own pace: {percent:+.1f} % in the second report, not counted as a change"
    for line in found.circumstances:
        yield f"  differs: {line}"
    for case in found.only_after:
        yield f"  only in the second report: {case}"


def _words(change: Change) -> str:
    if change.kind is Kind.LOST:
        return f"no longer runs ({change.reason})"
    if change.kind is Kind.GOLDEN:
        return "the logits of its golden pictures are wrong now"
    if change.kind is Kind.AUC:
        return f"AUC {change.before:.3f} → {change.after:.3f}"
    percent = f"{100 * (change.ratio - 1):+.1f} % ({100 * (change.low - 1):+.1f} to {100 * (change.high - 1):+.1f})"
    return f"{NAMES[change.figure]}: {change.before:.4g} → {change.after:.4g}, {percent}"
