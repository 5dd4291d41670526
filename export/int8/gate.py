"""What changes from one stage to the next, and which INT8 network holds on the board."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.model.contract import Calibration
from train.evaluation.calibrate import probabilities
from train.evaluation.metrics import Figure, paired_bootstrap

Logits = NDArray[np.float32]

EQUAL = 1e-5
"""Up to here two logits are the same: sums in float32 differ by about 1e-6 between instruction sets."""


@dataclass(frozen=True)
class Limits:
    """What INT8 may change.

    Attributes:
        auc_loss: against FP32, both under the board's instruction set.
        changed: share of decisions at FP32's balanced threshold, against the same.
        board_changed: share of decisions between workstation and board.
        board_score: largest change of a score between workstation and board.
    """

    auc_loss: float = 0.005
    changed: float = 0.02
    board_changed: float = 0.0
    board_score: float = 0.03


@dataclass(frozen=True)
class Difference:
    """How two sets of logits of the same faces differ: largest and mean absolute changes.

    `moved` counts the faces with a logit that differs by more than EQUAL, `changed` those whose decision differs.
    """

    faces: int
    max_logit: float
    mean_logit: float
    max_score: float
    mean_score: float
    changed: int
    moved: int

    @property
    def changed_share(self) -> float:
        """Share of decisions that differ, in [0, 1]."""
        return self.changed / self.faces


def margins(logits: Logits) -> NDArray[np.float64]:
    """Return logit of fake − logit of real, [N]."""
    values = logits.astype(np.float64)
    margin: NDArray[np.float64] = values[:, 1] - values[:, 0]
    return margin


def scores(logits: Logits, reading: Calibration) -> NDArray[np.float64]:
    """Return the probabilities of fake [N] under `reading`'s temperature."""
    return probabilities(margins(logits), reading.temperature)


def difference(before: Logits, after: Logits, reading: Calibration) -> Difference:
    """Compare logits of the same faces, both read with one temperature and balanced threshold.

    One reading for both: a threshold that was fitted anew wanders along the flat top of the accuracy curve, and would
    count as changed what quantization left alone.
    """
    change = np.abs(after.astype(np.float64) - before.astype(np.float64))
    first, second = scores(before, reading), scores(after, reading)
    gap = np.abs(second - first)
    flipped = (first >= reading.balanced) != (second >= reading.balanced)
    return Difference(
        len(before),
        float(change.max()),
        float(change.mean()),
        float(gap.max()),
        float(gap.mean()),
        int(flipped.sum()),
        int((change.max(axis=1) > EQUAL).sum()),
    )


NOTHING = Difference(1, math.inf, math.inf, 1.0, 1.0, 1, 1)
NO_FIGURE: Figure = {"value": math.nan, "low": math.nan, "high": math.nan}


@dataclass(frozen=True)
class Tried:
    """A candidate that was measured.

    Attributes:
        name: of the candidate.
        auc: area under the ROC curve under the board's instruction set.
        auc_change: from FP32 to it, both under the board's instruction set, with its interval.
        against_fp32: the same pair's logits.
        to_board: from the workstation's instruction set to the board's.
        failed: the limits that it misses, in words; empty where it holds.
    """

    name: str
    auc: float
    auc_change: Figure
    against_fp32: Difference
    to_board: Difference
    failed: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether it is within all limits."""
        return not self.failed


def judge_candidate(
    name: str,
    *,
    labels: Sequence[int],
    fp32_board: Logits,
    native: Logits,
    board: Logits,
    reading: Calibration,
    limits: Limits,
    groups: Sequence[str] | None = None,
) -> Tried:
    """Hold a candidate's logits, measured under both instruction sets, against the limits.

    Faces of one of `groups` are drawn together in the interval; each by itself where None.
    """
    if not all(np.isfinite(found).all() for found in (native, board)):
        return Tried(name, float("nan"), NO_FIGURE, NOTHING, NOTHING, ("a logit is no number",))
    against, to_board = difference(fp32_board, board, reading), difference(native, board, reading)
    before, after = scores(fp32_board, reading), scores(board, reading)
    change = paired_bootstrap(labels, before, after, figure="auc", groups=groups)
    auc = auc_of(labels, board)
    found = (
        ("AUC loss", -change["value"], limits.auc_loss),
        ("changed decisions", against.changed_share, limits.changed),
        ("changed decisions between workstation and board", to_board.changed_share, limits.board_changed),
        ("score change between workstation and board", to_board.max_score, limits.board_score),
    )
    failed = tuple(f"{what} {value:.4f} is over {limit:g}" for what, value, limit in found if not value <= limit)
    return Tried(name, auc, change, against, to_board, failed)


@dataclass(frozen=True)
class LimitMetric:
    """The metric of accuracy control: 1, less 0.01 for each time that the tighter limit is used up.

    A drop of 0.01 thus means that one of AUC and changed decisions has reached its limit.
    """

    labels: Sequence[int]
    fp32: Logits
    reading: Calibration
    limits: Limits

    def __call__(self, logits: Logits) -> float:
        """Return the metric of `logits`."""
        auc_loss = auc_of(self.labels, self.fp32) - auc_of(self.labels, logits)
        changed = difference(self.fp32, logits, self.reading).changed_share
        used = (auc_loss / max(self.limits.auc_loss, 1e-9), changed / max(self.limits.changed, 1e-9))
        return 1.0 - 0.01 * max(*used, 0.0)


def auc_of(labels: Sequence[int], logits: Logits) -> float:
    """Return the area under the ROC curve."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, margins(logits)))


def best(tried: Sequence[Tried]) -> Tried | None:
    """Return the candidate to ship: of those that hold, the one that changes the fewest decisions on the board.

    Among equals the one that the workstation's instruction set and the board's agree on best, then the one closest to
    FP32. AUC decides nothing here: differences of some 0.0005 between candidates lie within its interval.
    """
    holding = [candidate for candidate in tried if candidate.holds]
    return min(holding, key=_order, default=None)


def _order(candidate: Tried) -> tuple[float, ...]:
    return (candidate.against_fp32.changed, candidate.to_board.max_logit, candidate.against_fp32.mean_logit)


def plain(value: Any) -> Any:
    """Return dataclasses as mappings and tuples as lists, as JSON can hold it; numbers that are none become null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
