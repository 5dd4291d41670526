"""The robustness grid: figures on the same faces after compression, scaling, blur and recapture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from PIL import Image

from train.data.catalog import FaceRecord
from train.data.degrade import blur, jpeg, recapture, rescale
from train.data.sample import pick_faces
from train.evaluation.evaluation import JudgedFaces, Subject, judge_faces
from train.evaluation.method import SLICE_BOOTSTRAP
from train.evaluation.metrics import measure, measure_decided
from train.parallel import progress_bar


@dataclass(frozen=True)
class Condition:
    """The degradations of one row, in this order: scaling, blur, filming from a screen, compression."""

    scale: float = 1.0
    blur: float = 0.0
    recaptured: bool = False
    quality: int = 0

    @property
    def name(self) -> str:
        """Its name in a table."""
        parts = [
            f"scale {self.scale:g}" if self.scale != 1.0 else "",
            f"blur {self.blur:g}" if self.blur else "",
            "recapture" if self.recaptured else "",
            f"JPEG {self.quality}" if self.quality else "",
        ]
        return ", ".join(part for part in parts if part) or "clean"

    def __call__(self, picture: Image.Image, seed: int) -> Image.Image:
        """Return the degraded picture; `seed` is for the recapture."""
        changed = blur(rescale(picture, self.scale), self.blur)
        if self.recaptured:
            changed = recapture(changed, np.random.default_rng(seed))
        return jpeg(changed, self.quality) if self.quality else changed


def random_condition(kind: int, seed: int) -> Condition:
    """Return a random damage of one of DAMAGES kinds: JPEG, scaling, blur, recapture, or several at once."""
    random = np.random.default_rng((kind, seed))
    quality, scale = int(random.integers(30, 91)), float(random.uniform(0.4, 0.9))
    return (
        Condition(quality=quality),
        Condition(scale=scale),
        Condition(blur=float(random.uniform(0.4, 1.5))),
        Condition(recaptured=True),
        Condition(scale=scale, recaptured=bool(random.integers(2)), quality=quality),
    )[kind]


DAMAGES = 5

ONE_BY_ONE = (
    Condition(),
    *(Condition(quality=quality) for quality in (90, 70, 50, 30)),
    *(Condition(scale=scale) for scale in (0.75, 0.5, 0.25)),
    *(Condition(blur=sigma) for sigma in (0.5, 1.0, 2.0)),
    Condition(recaptured=True),
    Condition(scale=0.5, recaptured=True, quality=50),
)
"""One degradation at a time, and at the end several at once."""

CROSSED = tuple(
    Condition(scale=scale, blur=sigma, recaptured=recaptured, quality=quality)
    for scale, sigma, recaptured, quality in product((1.0, 0.5), (0.0, 1.0), (False, True), (0, 90, 70, 50, 30))
)
"""Every combination."""

GRIDS: Mapping[str, Sequence[Condition]] = {"off": (), "one": ONE_BY_ONE, "crossed": CROSSED}
"""Conditions by the name that `--robustness` takes."""


def robustness_rows(
    subject: Subject, faces: Sequence[FaceRecord], conditions: Sequence[Condition], count: int, bootstrap: int
) -> list[dict[str, Any]]:
    """Judge `count` of `faces` under each condition, and return the grid's rows."""
    picked = pick_faces(faces, count)
    rows = []
    with progress_bar("robustness", len(conditions)) as advance:
        for condition in conditions:

            def corrupt(picture: Image.Image, face: FaceRecord, condition: Condition = condition) -> Image.Image:
                return condition(picture, int(face.sha256[:8], 16))

            rows.append(robustness_row(condition.name, judge_faces(subject, picked, corrupt=corrupt), bootstrap))
            advance(1)
    return rows


def robustness_row(name: str, judged: JudgedFaces, bootstrap: int) -> dict[str, Any]:
    """Return a row of the grid for faces that were judged under a condition called `name`."""
    calibration, labels, scores = judged.calibration, judged.labels, judged.scores
    draws: dict[str, Any] = {"groups": judged.groups, "bootstrap": min(bootstrap, SLICE_BOOTSTRAP)}
    figures = measure(labels, scores, threshold=calibration.balanced, **draws)
    decided = measure_decided(labels, scores, low=calibration.low, high=calibration.high, **draws)
    return {
        "name": name,
        **{key: figures[key] for key in ("auc", "balanced_accuracy", "recall")},
        **{key: decided[key] for key in ("coverage", "fpr", "fnr")},
        "faces": len(judged.faces),
    }
