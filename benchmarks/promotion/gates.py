"""The gates that a new detector passes before it replaces the old one.

Over all faces it must be shown not to be worse: the interval of the loss ends before what is allowed (a test of
non-inferiority). On a source alone, where there are fewer faces, it must not be shown to be worse.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_runtime.errors import UsageError
from train.data.splits import group_count
from train.evaluation.calibrate import proven_share
from train.evaluation.evaluation import MIN_SLICE, JudgedFaces
from train.evaluation.metrics import (
    INTERVAL,
    Figure,
    Measured,
    bootstrapped,
    calibration_error,
    decided_figures,
    pairwise_auc,
)

ALLOWED: Mapping[str, float] = {
    "auc": 0.01,
    "error": 0.01,
    "coverage": 0.05,
    "ece": 0.02,
    "rate": 0.05,
    "memory": 0.10,
}
"""Default for how much worse each figure may get; of rate and memory, which share."""

NAMES = {
    "auc": "AUC",
    "error": "error among the decided",
    "coverage": "coverage",
    "ece": "calibration error (ECE)",
    "rate": "rate capped to SSE4.2",
    "memory": "peak memory",
}
HIGHER_IS_BETTER = ("auc", "coverage", "rate")
ALL = "all faces"


@dataclass(frozen=True)
class Gate:
    """One figure, and whether it lets the new detector pass.

    Attributes:
        figure: a key of ALLOWED.
        where: ALL, or the name of a source.
        old, new: the figure of each detector; NaN where it has no value.
        loss: how much worse the new one is, negative where it is better, with its interval.
        allowed: how much worse it may be.
        passed: whether it passes.
        why: the reason where it does not, else empty.
    """

    figure: str
    where: str
    old: float
    new: float
    loss: Figure
    allowed: float
    passed: bool
    why: str = ""


def parse_allowed(texts: Sequence[str]) -> dict[str, float]:
    """Return ALLOWED with the values of `figure=value` texts.

    Raises:
        UsageError: one is not of this form.
    """
    allowed = dict(ALLOWED)
    for text in texts:
        name, _, value = text.partition("=")
        if name not in ALLOWED or not re.fullmatch(r"0|1|0?\.\d+", value):
            known = ", ".join(ALLOWED)
            raise UsageError(f"--allow {text}: give one of {known} and a number in [0, 1], as in error=0.02")
        allowed[name] = float(value)
    return allowed


def accuracy_gates(
    old: JudgedFaces, new: JudgedFaces, allowed: Mapping[str, float], bootstrap: int
) -> tuple[list[Gate], list[str]]:
    """Return the gates over all faces and over each source, and the sources with too few faces for gates of their own.

    `old` and `new` judged the same faces. Groups of faces are resampled together, and for both alike.
    """
    labels, sources = old.labels, np.array([face.source for face in old.faces])
    everything = np.ones(len(labels), dtype=bool)
    gates, small = _gates(ALL, (old, new), everything, everything, allowed, INTERVAL, bootstrap), []
    names = sorted(set(sources.tolist()))
    # Of many sources, one would look worse by chance (Bonferroni).
    tail = INTERVAL[0] / max(len(names), 1)
    for name in names if len(names) > 1 else ():
        inside = sources == name
        if inside.sum() < MIN_SLICE:
            small.append(name or "unnamed")
            continue
        # A camera that saw real faces alone has no AUC: it is measured against all fakes.
        lacking = [label for label in (0, 1) if not (inside & (labels == label)).any()]
        against = inside | np.isin(labels, lacking)
        gates += _gates(name or "unnamed", (old, new), inside, against, allowed, (tail, 100.0 - tail), bootstrap)
    return gates, small


def _gates(
    where: str,
    pair: tuple[JudgedFaces, JudgedFaces],
    inside: NDArray[np.bool_],
    against: NDArray[np.bool_],
    allowed: Mapping[str, float],
    interval: tuple[float, float],
    bootstrap: int,
) -> list[Gate]:
    """Return the gates of the faces `inside`; the AUC is measured on those of `against`.

    Where no face got worse, no resample is worse either. So no upper bound is below that of Clopper and Pearson for no
    loss among as many groups, unless all scores are the same.
    """
    before, after = (_measured(judged, inside, against) for judged in pair)

    def losses(weights: NDArray[np.float64]) -> dict[str, float]:
        first, second = before(weights), after(weights)
        return {name: (first[name] - second[name]) * (1 if name in HIGHER_IS_BETTER else -1) for name in first}

    groups = [group for group, used in zip(pair[0].groups, against, strict=True) if used]
    found = bootstrapped(losses, len(groups), groups, bootstrap, interval=interval)
    floors = _floors(pair[1], inside, against) if not np.array_equal(pair[0].scores, pair[1].scores) else {}
    even = np.ones(len(groups))
    olds, news = before(even), after(even)
    gates = []
    for name, loss in found.items():
        if np.isnan(olds[name]) and np.isnan(news[name]):
            continue
        loss = {**loss, "high": max(loss["high"], floors.get(name, -1.0))}
        why = _why_not(name, loss, allowed[name], strict=where == ALL, lost=bool(np.isnan(news[name])))
        gates.append(
            Gate(
                figure=name,
                where=where,
                old=olds[name],
                new=news[name],
                loss=loss,
                allowed=allowed[name],
                passed=not why,
                why=why,
            )
        )
    return gates


def _floors(judged: JudgedFaces, inside: NDArray[np.bool_], against: NDArray[np.bool_]) -> dict[str, float]:
    """Return the smallest upper bounds that a loss may have; for an AUC the smaller class counts, as for its pairs."""
    calibration, scores = judged.calibration, judged.scores
    decided = inside & ((scores >= calibration.high) | (scores <= calibration.low))
    smaller = min(
        (against & (judged.labels == label) for label in (0, 1)), key=lambda own: group_count(judged.groups, own)
    )
    faces = {"auc": smaller, "error": decided, "coverage": inside}
    return {name: proven_share(0, group_count(judged.groups, own)) for name, own in faces.items()}


def _measured(judged: JudgedFaces, inside: NDArray[np.bool_], against: NDArray[np.bool_]) -> Measured:
    truth, score, own = judged.labels[against], judged.scores[against], inside[against]
    area = pairwise_auc(truth, score)
    decided = decided_figures(truth, score, judged.calibration.low, judged.calibration.high)
    both = 0 < truth[own].sum() < own.sum()

    def figures(weights: NDArray[np.float64]) -> dict[str, float]:
        used = weights * own
        shares = decided(used)
        error = calibration_error(truth, score, used) if both and used.any() else float("nan")
        return {"auc": area(weights), "error": shares["error"], "coverage": shares["coverage"], "ece": error}

    return figures


def _why_not(name: str, loss: Figure, allowed: float, *, strict: bool, lost: bool) -> str:
    """Return why a gate does not pass, or nothing."""
    if lost:
        return f"{NAMES[name]} has no value any more: the new one decides no face"
    bounds = f"{loss['value']:.3f} ({loss['low']:.3f} to {loss['high']:.3f})"
    if loss["value"] > allowed and (strict or loss["low"] > 0.0):
        return f"{NAMES[name]} is worse by {bounds}, {allowed:g} is allowed"
    if strict and loss["high"] > allowed:
        return f"{NAMES[name]} may be worse by {bounds}, {allowed:g} is allowed: give more faces"
    return ""


def machine_gate(name: str, old: Sequence[float], new: Sequence[float], allowed: float) -> Gate:
    """Return the gate of a figure that was measured in rounds, old and new in turn: the median of the rounds' ratios.

    The bounds of the loss are those of the rounds.
    """
    ratios = np.asarray(new) / np.asarray(old)
    losses = 1.0 - ratios if name in HIGHER_IS_BETTER else ratios - 1.0
    loss = {"value": float(np.median(losses)), "low": float(losses.min()), "high": float(losses.max())}
    why = ""
    if loss["value"] > allowed:
        why = f"{NAMES[name]} is worse by {loss['value']:.0%}, {allowed:.0%} is allowed"
    return Gate(
        figure=name,
        where=ALL,
        old=float(np.median(old)),
        new=float(np.median(new)),
        loss=loss,
        allowed=allowed,
        passed=not why,
        why=why,
    )
