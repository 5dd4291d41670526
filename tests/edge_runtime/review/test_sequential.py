import math

import pytest

from edge_runtime.model.contract import Verdict
from edge_runtime.review.sequential import FieldState, FieldTest, capital, is_telling

REAL, FAKE, UNCERTAIN = Verdict.REAL, Verdict.FAKE, Verdict.UNCERTAIN


@pytest.mark.parametrize("count", [1, 7, 60, 500])
def test_fair_bets_gain_nothing(count):
    """Over all outcomes of fair faces the capital is 1 on average: that is what makes looking at any time valid."""
    mean = sum(math.comb(count, won) / 2**count * capital(won, count - won) for won in range(count + 1))
    assert mean == pytest.approx(1.0)


def test_a_better_detector_loses_the_bet():
    mean = sum(math.comb(40, won) * 0.4**won * 0.6 ** (40 - won) * capital(won, 40 - won) for won in range(41))
    assert mean < 1.0


def test_huge_counts_stay_finite():
    assert capital(10**6, 0) > 1e300
    assert capital(0, 10**6) == 0.0


def test_false_alarms_make_it_worse():
    test = FieldTest()
    while test.state is FieldState.OPEN:
        test.add(REAL, FAKE, fake=False)
    assert (test.state, test.decided_at) == (FieldState.WORSE, 8)
    # The first answer stays.
    for _ in range(200):
        test.add(FAKE, UNCERTAIN, fake=False)
    assert (test.state, test.reviewed, test.decided_at) == (FieldState.WORSE, 208, 8)


def test_more_fakes_found_do_not_excuse_false_alarms():
    test = FieldTest()
    for _ in range(12):
        test.add(REAL, FAKE, fake=False)
        test.add(UNCERTAIN, FAKE, fake=True)
    assert test.state is FieldState.WORSE


def test_fewer_errors_make_it_better():
    test = FieldTest()
    while test.state is FieldState.OPEN:
        test.add(FAKE, UNCERTAIN, fake=False)
        test.add(REAL, FAKE, fake=True)
    assert test.state is FieldState.BETTER
    assert "better" in test.text()


def test_faces_that_tell_nothing_are_ignored():
    test = FieldTest()
    for old, new in ((REAL, UNCERTAIN), (UNCERTAIN, REAL), (FAKE, FAKE), (REAL, REAL)):
        assert not is_telling(old, new)
        test.add(old, new, fake=True)
    assert test.reviewed == 0
    assert test.text().startswith("undecided after 0")
