"""Figures of each generator against the real faces that belong to it, and of each real source against its fakes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edge_runtime.errors import UsageError
from train.evaluation.evaluation import JudgedFaces
from train.evaluation.method import SLICE_BOOTSTRAP
from train.evaluation.metrics import Figure, measure, measure_decided

KINDS = ("source", "generator")

ORIGIN_FIGURES = {
    "auc": "AUC",
    "eer": "EER",
    "error": "error among the decided",
    "coverage": "coverage",
    "fpr": "FPR",
    "fnr": "FNR",
}
"""The figures of each row, and their names."""

HIGHER_IS_BETTER = ("auc", "coverage")

Pairs = Mapping[str, frozenset[str]]
"""The real sources that belong to a generator, by its name."""


def parse_kinds(text: str) -> tuple[str, ...]:
    """Read `source,generator`.

    Raises:
        UsageError: it names something else.
    """
    kinds = tuple(filter(None, (part.strip() for part in text.split(","))))
    for kind in kinds:
        if kind not in KINDS:
            raise UsageError(f"--by {text}: give {' or '.join(KINDS)}, or both separated by a comma")
    return kinds


def parse_pairs(texts: Sequence[str]) -> Pairs:
    """Read `fake:real` pairs, several in one text separated by commas.

    Raises:
        UsageError: one is not such a pair.
    """
    pairs: dict[str, frozenset[str]] = {}
    for pair in filter(None, (part.strip() for text in texts for part in text.split(","))):
        fake, _, real = pair.partition(":")
        if not fake or not real or ":" in real:
            raise UsageError(f"--pairs {pair}: give a generator and a real source, as in sdxl:ffhq")
        pairs[fake] = pairs.get(fake, frozenset()) | {real}
    return pairs


def origin_figures(judged: JudgedFaces, kinds: Sequence[str], pairs: Pairs, bootstrap: int) -> dict[str, Any]:
    """Return `rows`, one for each source and generator, and the `mean` and `worst` of each kind.

    A generator is measured against the real faces of its `pairs`, a source against the fakes that are paired with it;
    without a pair, against all faces of the other class.

    Raises:
        UsageError: a name of `pairs` is not among the judged faces.
    """
    labels, scores, calibration = judged.labels, judged.scores, judged.calibration
    origins = np.array([face.origin if face.label else face.source for face in judged.faces])
    known = [{str(name) for name in np.unique(origins[labels == label]) if name} for label in (0, 1)]
    for names, own, what in (
        (set(pairs), known[1], "generator"),
        ({real for reals in pairs.values() for real in reals}, known[0], "real source"),
    ):
        if missing := sorted(names - own):
            listed = f"choose from {', '.join(sorted(own))}" if own else "the catalog names none"
            raise UsageError(f"--pairs: {missing[0]} is not a {what} of the judged faces; {listed}")
    rows = []
    for kind in kinds:
        label = KINDS.index(kind)
        for name in sorted(known[label]):
            others = pairs.get(name, ()) if label else [fake for fake, reals in pairs.items() if name in reals]
            against = np.isin(origins, sorted(others)) if others else np.ones(len(labels), dtype=bool)
            used = np.where(labels == label, origins == name, against)
            draws: dict[str, Any] = {
                "groups": [group for group, inside in zip(judged.groups, used, strict=True) if inside],
                "bootstrap": min(bootstrap, SLICE_BOOTSTRAP),
            }
            truth, score = labels[used], scores[used]
            found = measure(truth, score, threshold=calibration.balanced, **draws)
            found |= measure_decided(truth, score, low=calibration.low, high=calibration.high, **draws)
            row = {"by": kind, "name": name, "against": sorted(others), "real": int((truth == 0).sum())}
            rows.append({**row, "fake": int(truth.sum()), **{key: found[key] for key in ORIGIN_FIGURES}})
    return {"rows": rows, **across(rows)}


def across(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, Figure]]]:
    """Return the `mean` and the `worst` of each figure by what `rows` are by; figures without a value don't count.

    The bounds of a mean are the means of the bounds, which is wider than its interval.
    """
    found: dict[str, dict[str, dict[str, Figure]]] = {"mean": {}, "worst": {}}
    for kind in dict.fromkeys(row["by"] for row in rows):
        for name in ORIGIN_FIGURES:
            figures = [row[name] for row in rows if row["by"] == kind and np.isfinite(row[name]["value"])]
            figures = figures or [dict.fromkeys(("value", "low", "high"), float("nan"))]
            mean = {key: float(np.mean([figure[key] for figure in figures])) for key in ("value", "low", "high")}
            if name in HIGHER_IS_BETTER:
                worst = min(figures, key=lambda figure: (figure["value"], figure["low"]))
            else:
                worst = max(figures, key=lambda figure: (figure["value"], figure["high"]))
            found["mean"].setdefault(kind, {})[name] = mean
            found["worst"].setdefault(kind, {})[name] = worst
    return found
