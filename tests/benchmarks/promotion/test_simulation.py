"""The claim of docs/results/next-model.md, with its seed."""

import numpy as np
import pytest

from benchmarks.promotion.simulation import CASES, LONG, REVIEWED, SAME, WORSE, Door, answers, share
from edge_runtime.model.contract import Verdict
from edge_runtime.review.sequential import FieldState


def test_regression_of_five_points_is_refused():
    tests = answers(WORSE, REVIEWED)
    assert len(tests) == 200
    assert share(tests, FieldState.WORSE) >= 0.95
    assert share(tests, FieldState.BETTER) == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("door", [SAME, CASES["no worse, FPR 5 %"]])
def test_equal_detector_is_hardly_ever_refused(door):
    """Neither within 60 reviews, nor if one looks after each of 400."""
    tests = answers(door, LONG)
    assert share(tests, FieldState.WORSE) <= 0.05
    assert share(tests, FieldState.BETTER) <= 0.05


def test_doors_have_the_rates_they_are_given():
    door = Door(fakes=0.5, more_fpr=0.05, correlation=0.0)
    found, stream = {}, door.disagreements(np.random.default_rng(1))
    for _ in range(4000):
        _, new, fake = next(stream)
        found[fake, new is Verdict.FAKE] = found.get((fake, new is Verdict.FAKE), 0) + 1
    # Independent errors: 6 % × 99 % against 1 % × 94 % of the reals, 80 % × 20 % each way of the fakes.
    assert found[False, True] / found[False, False] == pytest.approx(0.06 * 0.99 / (0.01 * 0.94), rel=0.35)
    assert found[True, True] / found[True, False] == pytest.approx(1.0, rel=0.1)
