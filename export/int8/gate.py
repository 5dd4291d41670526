"""The INT8 gate: which candidates are accepted or refused, and why, and which of the accepted ones ships."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from edge_runtime.model.contract import Calibration
from edge_runtime.plain_json import plain
from train.evaluation.calibrate import log_odds
from train.evaluation.metrics import Figure, paired_bootstrap

Logits = NDArray[np.float32]

EQUAL = 1e-5
"""Logits within this are the same: sums in float32 differ by about 1e-6 between instruction sets."""


class Criterion(str, Enum):
    """What a candidate can be refused for."""

    AUC_LOSS = "AUC loss"
    CHANGED = "changed decisions"
    BOARD_CHANGED = "changed decisions between workstation and board"
    BOARD_SCORE = "score change between workstation and board"
    NOT_FINITE = "a logit is NaN or infinite"
    NO_INT8 = "no layer is left in INT8"


@dataclass(frozen=True)
class Refusal:
    """One reason to refuse a candidate; `value` and `limit` are None where there is nothing to compare."""

    criterion: Criterion
    value: float | None = None
    limit: float | None = None

    def __str__(self) -> str:
        if self.value is None:
            return self.criterion.value
        return f"{self.criterion.value} {self.value:.4f} is over {self.limit:g}"


@dataclass(frozen=True)
class GateLimits:
    """How much INT8 may change.

    Attributes:
        auc_loss: AUC of FP32 less AUC of INT8, both under the board's instruction set.
        changed: share of decisions that differ between the same two, at FP32's balanced threshold.
        board_changed: share of decisions that differ between workstation and board.
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


@dataclass(frozen=True)
class Reading:
    """How logits of the measured faces are read: as FP32's are in the bundle.

    `qualities` are the faces' sharpness, blockiness and size [N, 3]; None for a calibration without groups.
    """

    calibration: Calibration
    qualities: NDArray[np.float64] | None = None

    def log_odds(self, logits: Logits) -> NDArray[np.float64]:
        """Return the log-odds of fake [M] of the first M faces, whose `logits` [M, 2] are given."""
        qualities = None if self.qualities is None else self.qualities[: len(logits)]
        return log_odds(logits, self.calibration, qualities)

    def scores(self, logits: Logits) -> NDArray[np.float64]:
        """Return the probabilities of fake [M] of the first M faces."""
        return np.asarray(expit(self.log_odds(logits)))

    def auc(self, labels: Sequence[int], logits: Logits) -> float:
        """Return the area under the ROC curve of the first M faces."""
        return float(roc_auc_score(labels, self.log_odds(logits)))


def difference(before: Logits, after: Logits, reading: Reading) -> Difference:
    """Compare logits of the same faces, both with the same `reading`.

    Accuracy hardly changes around the best threshold, so one fitted to each would move on its own and count faces as
    changed that quantization left alone.
    """
    change = np.abs(after.astype(np.float64) - before.astype(np.float64))
    first, second = reading.scores(before), reading.scores(after)
    gap, threshold = np.abs(second - first), reading.calibration.balanced
    return Difference(
        faces=len(before),
        max_logit=float(change.max()),
        mean_logit=float(change.mean()),
        max_score=float(gap.max()),
        mean_score=float(gap.mean()),
        changed=int(((first >= threshold) != (second >= threshold)).sum()),
        moved=int((change.max(axis=1) > EQUAL).sum()),
    )


@dataclass(frozen=True)
class GateResult:
    """A candidate after the gate.

    Attributes:
        auc: area under the ROC curve under the board's instruction set.
        auc_change: from FP32 to the candidate, both under the board's instruction set, with its interval.
        against_fp32: how the logits of the same two differ.
        to_board: how its logits differ from the workstation's instruction set to the board's.
    """

    name: str
    auc: float
    auc_change: Figure
    against_fp32: Difference
    to_board: Difference
    refusals: tuple[Refusal, ...]

    @property
    def accepted(self) -> bool:
        """Whether it is within all limits."""
        return not self.refusals

    def refuse(self, criterion: Criterion) -> "GateResult":
        """Return this result with one more reason to refuse it."""
        return replace(self, refusals=(*self.refusals, Refusal(criterion)))

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it, the refusals in words under `failed`."""
        values: dict[str, Any] = plain(self)
        del values["refusals"]
        return {**values, "failed": [str(refusal) for refusal in self.refusals]}


def judge_candidate(
    name: str,
    *,
    labels: Sequence[int],
    groups: Sequence[str] | None = None,
    fp32_board: Logits,
    native: Logits,
    board: Logits,
    reading: Reading,
    limits: GateLimits,
) -> GateResult:
    """Compare a candidate's logits [N, 2] under both instruction sets with the limits.

    Args:
        name: of the candidate.
        labels: [N], 0 real, 1 fake.
        groups: [N], faces that the bootstrap draws together; None draws each by itself.
        fp32_board: logits [N, 2] of FP32 under the board's instruction set.
        native: under the workstation's instruction set.
        board: under the board's.
        reading: FP32's, for all logits.
        limits: what may change.
    """
    if not (np.isfinite(native).all() and np.isfinite(board).all()):
        figure: Figure = {"value": math.nan, "low": math.nan, "high": math.nan}
        change = Difference(
            faces=1, max_logit=math.inf, mean_logit=math.inf, max_score=1.0, mean_score=1.0, changed=1, moved=1
        )
        return GateResult(name, math.nan, figure, change, change, refusals=(Refusal(Criterion.NOT_FINITE),))
    against_fp32, to_board = difference(fp32_board, board, reading), difference(native, board, reading)
    scores = [reading.scores(logits) for logits in (fp32_board, board)]
    auc_change = paired_bootstrap(labels, *scores, figure="auc", groups=groups)
    checked = (
        Refusal(Criterion.AUC_LOSS, -auc_change["value"], limits.auc_loss),
        Refusal(Criterion.CHANGED, against_fp32.changed_share, limits.changed),
        Refusal(Criterion.BOARD_CHANGED, to_board.changed_share, limits.board_changed),
        Refusal(Criterion.BOARD_SCORE, to_board.max_score, limits.board_score),
    )
    return GateResult(
        name=name,
        auc=reading.auc(labels, board),
        auc_change=auc_change,
        against_fp32=against_fp32,
        to_board=to_board,
        refusals=tuple(check for check in checked if not check.value <= check.limit),  # type: ignore[operator]
    )


@dataclass(frozen=True)
class LimitMetric:
    """The metric of accuracy control: 1 minus 0.01 times the used share of the tighter limit.

    A drop of 0.01 thus means that one of AUC and changed decisions has reached its limit.
    """

    labels: Sequence[int]
    fp32: Logits
    reading: Reading
    limits: GateLimits

    def __call__(self, logits: Logits) -> float:
        """Return the metric of `logits`; larger is better."""
        auc_loss = self.reading.auc(self.labels, self.fp32) - self.reading.auc(self.labels, logits)
        changed = difference(self.fp32, logits, self.reading).changed_share
        used = (auc_loss / max(self.limits.auc_loss, 1e-9), changed / max(self.limits.changed, 1e-9))
        return 1.0 - 0.01 * max(*used, 0.0)


def margins(logits: Logits) -> NDArray[np.float64]:
    """Return logit of fake − logit of real, [N]."""
    margin: NDArray[np.float64] = np.diff(logits.astype(np.float64), axis=1)[:, 0]
    return margin


def best(results: Sequence[GateResult]) -> GateResult | None:
    """Return the candidate that ships, or None: of the accepted ones, the one that changes the fewest decisions.

    Ties go to the one with the smallest gap between workstation and board, then to the one closest to FP32. AUC is not
    compared: differences of about 0.0005 between candidates lie within its interval.
    """

    def order(result: GateResult) -> tuple[float, ...]:
        return (result.against_fp32.changed, result.to_board.max_logit, result.against_fp32.mean_logit)

    return min((result for result in results if result.accepted), key=order, default=None)


def closest(results: Sequence[GateResult]) -> GateResult:
    """Return the refused candidate with the fewest refusals; ties go to the fewest changed decisions."""

    def order(result: GateResult) -> tuple[float, ...]:
        changed = result.against_fp32.changed + result.to_board.changed
        return (len(result.refusals), changed, result.against_fp32.mean_logit)

    return min(results, key=order)
