"""What is counted as a change, and which candidate ships."""

import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from edge_runtime.model.contract import Calibration
from export.int8.gate import LimitMetric, Limits, Tried, best, difference, judge_candidate, plain, scores
from train.evaluation.metrics import pairwise_auc

READING = Calibration(temperature=1.0, balanced=0.5)
LABELS = [0, 1] * 50


def logits(shift: float = 0.0, seed: int = 0) -> np.ndarray:
    margin = np.random.default_rng(seed).normal(np.where(LABELS, 2.0, -2.0), 1.0) + shift
    return np.stack([-margin / 2, margin / 2], axis=1).astype(np.float32)


def judged(native: np.ndarray, board: np.ndarray, limits: Limits | None = None) -> Tried:
    return judge_candidate(
        "it",
        labels=LABELS,
        fp32_board=logits(),
        native=native,
        board=board,
        reading=READING,
        limits=limits or Limits(),
    )


def test_a_difference_is_counted_in_logits_scores_and_decisions() -> None:
    before = np.array([[0.0, 1.0], [0.0, -1.0], [0.0, 0.1]], np.float32)
    after = np.array([[0.0, 1.5], [0.0, -1.0], [0.0, -0.1]], np.float32)
    found = difference(before, after, READING)
    assert found.max_logit == pytest.approx(0.5)
    assert found.mean_logit == pytest.approx(0.7 / 6)
    assert found.max_score == pytest.approx(1 / (1 + np.exp(-1.5)) - 1 / (1 + np.exp(-1.0)))
    assert (found.changed, found.changed_share) == (1, pytest.approx(1 / 3))
    assert found.moved == 2


def test_scores_are_read_with_the_temperature() -> None:
    assert scores(np.array([[0.0, 2.0]], np.float32), Calibration(temperature=2.0))[0] == pytest.approx(0.7310586)


def test_the_same_logits_hold() -> None:
    assert judged(logits(), logits()).holds


def test_sums_that_saturate_on_the_board_are_found() -> None:
    tried = judged(logits(), logits(shift=1.5))
    assert any("between workstation and board" in text for text in tried.failed)
    assert any(text.startswith("changed decisions") for text in tried.failed)


def test_a_score_that_changes_on_the_board_is_found_though_no_decision_does() -> None:
    margin = np.where(LABELS, 1.0, -1.0)
    native, board = (np.stack([-m / 2, m / 2], axis=1).astype(np.float32) for m in (margin, margin * 1.3))
    tried = judge_candidate(
        "it", labels=LABELS, fp32_board=native, native=native, board=board, reading=READING, limits=Limits()
    )
    assert [text.split(" 0.")[0] for text in tried.failed] == ["score change between workstation and board"]


def test_a_loss_of_auc_is_found() -> None:
    blurred = logits() + np.random.default_rng(1).normal(0, 2, (100, 2)).astype(np.float32)
    assert any(text.startswith("AUC loss") for text in judged(blurred, blurred, Limits(changed=1.0)).failed)


def test_faces_of_one_identity_are_drawn_together_in_the_interval() -> None:
    blurred = logits() + np.random.default_rng(1).normal(0, 2, (100, 2)).astype(np.float32)
    common = {"labels": LABELS * 4, "reading": READING, "limits": Limits()}
    fp32, board = np.tile(logits(), (4, 1)), np.tile(blurred, (4, 1))
    given = {"fp32_board": fp32, "native": board, "board": board, **common}
    alone = judge_candidate("it", **given).auc_change
    together = judge_candidate("it", groups=[str(index % 100) for index in range(400)], **given).auc_change
    assert together["value"] == alone["value"]
    assert together["high"] - together["low"] > 1.5 * (alone["high"] - alone["low"])


def test_logits_that_are_no_numbers_never_hold() -> None:
    broken = logits()
    broken[0] = np.inf
    tried = judged(broken, broken, Limits(auc_loss=1, changed=1))
    assert tried.failed == ("a logit is no number",)
    json.dumps(plain(tried), allow_nan=False)


def test_the_interval_of_an_auc_is_that_of_its_curve() -> None:
    score, generator = scores(logits(), READING).round(1), np.random.default_rng(3)
    quick = pairwise_auc(np.array(LABELS), score)
    for _ in range(20):
        weights = generator.integers(0, 3, len(LABELS)).astype(float)
        assert quick(weights) == pytest.approx(roc_auc_score(LABELS, score, sample_weight=weights))


def test_of_those_that_hold_the_one_that_changes_least_on_the_board_ships() -> None:
    good = judged(logits(), logits())
    close = judged(logits(shift=0.05), logits(shift=0.05))
    bad = judged(logits(), logits(shift=1.5))
    assert best([bad, close, good]) is good
    assert best([bad]) is None


def test_the_control_metric_drops_by_a_hundredth_exactly_at_the_limits() -> None:
    metric = LimitMetric(LABELS, logits(), READING, Limits(auc_loss=1.0, changed=0.02))
    assert metric(logits()) == 1.0
    flipped = logits()
    flipped[:2] = flipped[:2, ::-1]
    assert metric(flipped) == pytest.approx(0.99)
