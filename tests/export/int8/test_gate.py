"""What counts as a change, and which candidates are accepted."""

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from edge_runtime.judging.decide import fake_scores
from edge_runtime.model.contract import Calibration, QualityGroup
from export.int8.gate import (
    Criterion,
    GateLimits,
    GateResult,
    LimitMetric,
    Reading,
    best,
    closest,
    difference,
    judge_candidate,
)
from train.evaluation.metrics import pairwise_auc

READING = Reading(Calibration(temperature=1.0, balanced=0.5))
LABELS = [0, 1] * 50


def logits(shift: float = 0.0, seed: int = 0) -> np.ndarray:
    margin = np.random.default_rng(seed).normal(np.where(LABELS, 2.0, -2.0), 1.0) + shift
    return np.stack([-margin / 2, margin / 2], axis=1).astype(np.float32)


def blurred() -> np.ndarray:
    return logits() + np.random.default_rng(1).normal(0, 2, (100, 2)).astype(np.float32)


def judged(native: np.ndarray, board: np.ndarray, **limits: float) -> GateResult:
    return judge_candidate(
        "it",
        labels=LABELS,
        fp32_board=logits(),
        native=native,
        board=board,
        reading=READING,
        limits=GateLimits(**limits),
    )


def test_a_difference_in_logits_scores_and_decisions() -> None:
    before = np.array([[0.0, 1.0], [0.0, -1.0], [0.0, 0.1]], np.float32)
    after = np.array([[0.0, 1.5], [0.0, -1.0], [0.0, -0.1]], np.float32)
    found = difference(before, after, READING)
    assert found.max_logit == pytest.approx(0.5)
    assert found.mean_logit == pytest.approx(0.7 / 6)
    assert found.max_score == pytest.approx(1 / (1 + np.exp(-1.5)) - 1 / (1 + np.exp(-1.0)))
    assert (found.changed, found.changed_share) == (1, pytest.approx(1 / 3))
    assert found.moved == 2


def test_decisions_are_those_of_each_face_s_quality() -> None:
    """The blurred half of the faces reads 3 higher: what changes is what the board would call otherwise."""
    groups = (QualityGroup(0.5, None, None, 2.0, 3.0), QualityGroup(None, None, None, 1.0, 0.0))
    qualities = np.array([[0.4, 1.0, 200.0], [0.6, 1.0, 200.0]] * 2)
    reading = Reading(Calibration(groups=groups), qualities)
    before = np.array([[0.0, -1.4], [0.0, -1.4], [0.0, 1.0], [0.0, 0.1]], np.float32)
    found = difference(before, before - np.array([0.0, 0.3], np.float32), reading)
    assert found.changed == 2
    assert found.max_logit == pytest.approx(0.3)
    assert reading.log_odds(before) == pytest.approx([0.2, -1.4, 5.0, 0.1])
    assert reading.log_odds(before[:1]) == pytest.approx([0.2])
    assert reading.auc([0, 1, 1, 0], before) == 0.5
    metric = LimitMetric([0, 1, 1, 0], before, reading, GateLimits(auc_loss=1.0, changed=0.5))
    assert metric(before - np.array([0.0, 0.3], np.float32)) == pytest.approx(0.99)


@pytest.mark.parametrize(
    ("native", "board", "limits", "criteria"),
    [
        (logits(), logits(), {}, []),
        (logits(), logits(1.5), {}, [Criterion.CHANGED, Criterion.BOARD_CHANGED, Criterion.BOARD_SCORE]),
        (logits(), logits() * 1.3, {}, [Criterion.BOARD_SCORE]),
        (blurred(), blurred(), {"changed": 1.0}, [Criterion.AUC_LOSS]),
        (np.where(logits() > 2, np.inf, logits()), logits(), {"auc_loss": 1, "changed": 1}, [Criterion.NOT_FINITE]),
    ],
    ids=["the same", "sums saturate on the board", "scores move on the board", "AUC is lost", "infinite"],
)
def test_what_is_over_a_limit_is_refused(
    native: np.ndarray, board: np.ndarray, limits: dict[str, float], criteria: list[Criterion]
) -> None:
    result = judged(native, board, **limits)
    assert [refusal.criterion for refusal in result.refusals] == criteria
    assert result.accepted == (not criteria)
    assert all(refusal.value is None or refusal.value > refusal.limit for refusal in result.refusals)
    assert result.to_dict()["failed"] == list(map(str, result.refusals))
    json.dumps(result.to_dict(), allow_nan=False)


def test_the_interval_draws_faces_of_one_identity_together() -> None:
    given = {
        "labels": LABELS * 4,
        "fp32_board": np.tile(logits(), (4, 1)),
        "native": np.tile(blurred(), (4, 1)),
        "board": np.tile(blurred(), (4, 1)),
        "reading": READING,
        "limits": GateLimits(),
    }
    alone = judge_candidate("it", **given).auc_change
    together = judge_candidate("it", groups=[str(index % 100) for index in range(400)], **given).auc_change
    assert together["value"] == alone["value"]
    assert together["high"] - together["low"] > 1.5 * (alone["high"] - alone["low"])


def test_a_weighted_auc_is_that_of_its_curve() -> None:
    score, generator = fake_scores(logits()).round(1), np.random.default_rng(3)
    quick = pairwise_auc(np.array(LABELS), score)
    for _ in range(20):
        weights = generator.integers(0, 3, len(LABELS)).astype(float)
        assert quick(weights) == pytest.approx(roc_auc_score(LABELS, score, sample_weight=weights))


def test_the_accepted_candidate_that_changes_least_ships() -> None:
    good, near = judged(logits(), logits()), judged(logits(shift=0.05), logits(shift=0.05))
    bad, worse = judged(logits(), logits(shift=1.5)), judged(logits(), logits(shift=3.0))
    assert best([bad, near, good]) is good
    assert best([bad]) is None
    assert closest([worse, bad]) is bad


def test_changed_decisions_count_before_all_else() -> None:
    """Such as of a histogram candidate: its logits may be farther from FP32's and from the workstation's."""
    few, many = judged(logits(), logits()), judged(logits(), logits())
    few = replace(few, against_fp32=replace(few.against_fp32, changed=1, mean_logit=0.2))
    few = replace(few, to_board=replace(few.to_board, max_logit=0.02))
    many = replace(many, against_fp32=replace(many.against_fp32, changed=2))
    assert best([many, few]) is few
    assert best([many, replace(few, against_fp32=replace(few.against_fp32, changed=3))]) is many


def test_the_control_metric_drops_by_a_hundredth_at_the_limit() -> None:
    metric = LimitMetric(LABELS, logits(), READING, GateLimits(auc_loss=1.0, changed=0.02))
    assert metric(logits()) == 1.0
    flipped = logits()
    flipped[:2] = flipped[:2, ::-1]
    assert metric(flipped) == pytest.approx(0.99)
