"""The figures of a year, from faces made up for the purpose."""

import math

import numpy as np
import pytest

from benchmarks.results.plots import png
from benchmarks.year.curve import Row, alarms, as_csv, phases, plot, shares, table, weekly
from benchmarks.year.loop import Event, EventKind
from edge_runtime.model.contract import Verdict
from edge_runtime.monitoring.alarm import DriftState

REAL, FAKE, UNCERTAIN = Verdict.REAL, Verdict.FAKE, Verdict.UNCERTAIN
OK, WATCH, DRIFT = DriftState.OK, DriftState.WATCH, DriftState.DRIFT


def row(week: int, generator: str, verdict: Verdict, first: Verdict, state: DriftState = OK, model: int = 1) -> Row:
    return Row(week, generator, verdict, first, state, f"{model}.0.0")


YEAR = [
    row(0, "", REAL, REAL),
    row(0, "a", FAKE, FAKE, WATCH),
    row(1, "", REAL, REAL),
    row(1, "a", UNCERTAIN, UNCERTAIN),
    row(2, "b", REAL, REAL),
    row(2, "b", REAL, REAL, WATCH),
    row(2, "", REAL, REAL, DRIFT),
    row(3, "b", FAKE, REAL, DRIFT, 2),
    row(3, "", FAKE, REAL, OK, 2),
    row(3, "b", FAKE, REAL, OK, 2),
]
EVENTS = [
    Event(4, EventKind.CHANGE, "b"),
    Event(7, EventKind.DRIFT, "reason"),
    Event(7, EventKind.ROLLED_OUT, "model 2"),
]


def test_shares() -> None:
    own, first = shares(YEAR), shares(YEAR, first=True)
    assert (own.faces, own.decided, own.wrong) == (10, 9, 3)
    assert (first.wrong, first.error) == (4, pytest.approx(4 / 9))
    assert math.isnan(shares([row(0, "", UNCERTAIN, REAL)]).error)


def test_weekly_is_over_two_weeks() -> None:
    expected = [[0, 1], [0, 3 / 4], [2 / 4, 4 / 5], [3 / 6, 1]]
    np.testing.assert_allclose(weekly(YEAR), expected)


def test_phases_end_at_changes_and_rollouts() -> None:
    assert phases(YEAR, EVENTS) == [
        ("a, model 1", range(4)),
        ("b, model 1", range(4, 7)),
        ("b, model 2", range(7, 10)),
    ]
    assert table(YEAR, EVENTS)[-1] == "| b, model 2 | 3 | 0.333 (1 of 3) | 1.00 | 0.667 (2 of 3) | 1.00 |"


def test_alarms() -> None:
    assert alarms(YEAR, EVENTS) == [
        "b: watch or drift after 2 faces",
        "b: drift after 3 faces",
        "alarms without a change: 1 in 7 faces",
    ]


def test_picture_and_lines() -> None:
    assert png(plot(YEAR, EVENTS, 0.1)).startswith(b"\x89PNG")
    assert as_csv(YEAR).splitlines()[1:3] == ["0,,real,real,ok,1.0.0", "0,a,fake,fake,watch,1.0.0"]
