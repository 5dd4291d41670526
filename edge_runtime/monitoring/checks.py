"""Compares the latest faces with the baseline: one check per thing that may change."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_runtime.model.contract import Verdict
from edge_runtime.monitoring.baseline import ENOUGH, Baseline
from edge_runtime.monitoring.distance import SIZES, frechet, limit_at
from edge_runtime.monitoring.summary import BINS, KINDS, LIGHTS, TRAITS, UNLIKE, Summary

FEWEST = 50
"""Faces below which nothing is said."""

WATCH, DRIFT, CLEAR = 1.5, 2.0, 1.25
"""Levels that raise an alarm, and the level below which it ends. Chance alone reached 1.4 in docs/results/drift.md."""

KOLMOGOROV = 1.63
SIGMAS = 2.33
"""Both are exceeded by chance once in a hundred times (one-sided for SIGMAS)."""

WORDS = {
    "score": ("score lower", "score higher"),
    "size": ("are smaller", "are larger"),
    "sharpness": ("are less sharp", "are sharper"),
    "light": ("are darker", "are brighter"),
    "blockiness": ("show fewer JPEG blocks", "show more JPEG blocks"),
}
"""What a lower and a higher value of a trait means."""

MILD = ("size", "light")
"""Cameras differ in these from the start, and they need not harm: never more than `watch`."""


@dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
        name: what is compared, such as `features_real`.
        level: the value over the limit that chance explains; see WATCH and DRIFT.
        reason: what it means, in English.
        faces: how many faces it is from.
    """

    name: str
    level: float
    reason: str
    faces: int


def compare(recent: Summary, baseline: Baseline) -> list[Check]:
    """Return all checks that `recent` has enough faces for, the highest level first."""
    checks = [*_features(recent, baseline)]
    if recent.faces >= FEWEST:
        checks += [_trait(name, recent, baseline) for name in TRAITS]
        checks.append(_uncertain(recent, baseline))
    if (total := recent.faces + recent.unjudged) >= FEWEST:
        usual = baseline.summary.unjudged, baseline.summary.faces + baseline.summary.unjudged
        level = _rate_level(recent.unjudged, total, *usual)
        reason = f"{recent.unjudged / total:.0%} of the faces are too dark or too blurred to be judged"
        checks.append(Check("unjudged", level, reason, total))
    return sorted(checks, key=lambda check: -check.level)


def _features(recent: Summary, baseline: Baseline) -> Iterator[Check]:
    for light, verdict in np.argwhere(recent.counts[:, :-1] >= SIZES[0]):
        cell, count = (int(light), int(verdict)), int(recent.counts[light, verdict])
        if baseline.summary.counts[cell] >= ENOUGH:
            distance = float(frechet(*baseline.summary.moments(cell), *recent.moments(cell)))
            named = KINDS[cell[1]]
            seen = "" if LIGHTS[cell[0]] == "bright" else " in the dark"
            limit = limit_at(count, baseline.limits[cell])
            reason = f"faces judged {named}{seen} look different to the network (distance {distance:.1f}, by chance up "
            name = f"features_{named}" if not seen else f"features_{named}_dark"
            yield Check(name, distance / limit, f"{reason}to {limit:.1f})", count)


def _trait(name: str, recent: Summary, baseline: Baseline) -> Check:
    """Compare a histogram with the baseline's, at the same mix of verdicts, by Kolmogorov and Smirnov's distance."""
    row = list(TRAITS).index(name)
    found, usual = recent.histograms[:, :, row], baseline.summary.histograms[:, :, row]
    if name in MILD:
        # Light tells day from night itself, and at night faces are often small.
        found, usual = found.sum(0, keepdims=True), usual.sum(0, keepdims=True)
    if name != "score":
        # Of a verdict that was never given, the faces are compared with those of all verdicts.
        rare = usual.sum(-1, keepdims=True) < ENOUGH
        usual = np.where(rare, usual.sum(1, keepdims=True), usual)
    return _distribution(name, found.reshape(-1, BINS), usual.reshape(-1, BINS))


def _distribution(name: str, found: NDArray[np.int64], usual: NDArray[np.int64]) -> Check:
    counts, known = found.sum(1), usual.sum(1)
    used = (known >= ENOUGH) & (counts > 0)
    faces = int(counts[used].sum())
    if faces < FEWEST:
        return Check(name, 0.0, "too few faces", faces)
    shares = counts[used] / faces
    expected = (shares / known[used]) @ usual[used]
    difference = np.cumsum(expected - found[used].sum(0) / faces)
    limit = KOLMOGOROV * math.sqrt(1 / faces + (shares**2 / known[used]).sum())
    higher = float(difference.sum()) > 0
    level = float(np.abs(difference).max()) / limit
    if name in MILD:
        level = 0.0 if name == "size" and higher else min(level, math.nextafter(DRIFT, 0.0))
    return Check(name, level, f"faces {WORDS[name][higher]} than those it was measured on", faces)


def _uncertain(recent: Summary, baseline: Baseline) -> Check:
    """Compare the share of uncertain faces with that of the class that has more, since the mix at a door is unknown."""
    count = int(recent.counts[:, [KINDS.index(Verdict.UNCERTAIN.value), KINDS.index(UNLIKE)]].sum())
    worst = int(np.argmax(baseline.uncertain / np.maximum(baseline.labelled, 1)))
    usual = int(baseline.uncertain[worst]), int(baseline.labelled[worst])
    share = count / recent.faces
    reason = f"{share:.0%} of the faces are uncertain, usual are up to {usual[0] / max(usual[1], 1):.0%}"
    return Check("uncertain", _rate_level(count, recent.faces, *usual), reason, recent.faces)


def _rate_level(count: int, total: int, usual_count: int, usual_total: int) -> float:
    """Return how far a share is above the usual one, in units of what chance explains."""
    # Laplace's estimate, so that none of a few faces does not promise none of a thousand.
    usual = (usual_count + 1) / (usual_total + 2)
    spread = SIGMAS * math.sqrt(usual * (1 - usual) * (1 / total + 1 / (usual_total + 2))) + 1 / total
    return max(0.0, count / total - usual) / spread
