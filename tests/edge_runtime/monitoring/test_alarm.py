"""The alarm: rises after two alarming comparisons, falls after four calm ones."""

from datetime import datetime, timezone

import pytest

from edge_runtime.monitoring.alarm import Alarm, DriftState
from edge_runtime.monitoring.checks import Check

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
U, O, W, D = "unknown", "ok", "watch", "drift"  # noqa: E741


def states(levels: list[float]) -> list[str]:
    alarm, found = Alarm(DriftState.UNKNOWN, "", ""), []
    for level in levels:
        alarm = alarm.after([Check("any", level, "because", 200)], NOW)
        found.append(alarm.state.value)
    return found


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ([0.9, 1.4, 1.0], [O, O, O]),
        ([1.6, 1.4, 1.6], [W, W, W]),
        ([2.5, 2.5], [W, D]),
        ([2.5, 1.0, 2.5, 1.0], [W, W, W, W]),
        ([3, 3, 1, 1, 1, 1], [W, D, D, D, D, O]),
        ([3, 3, 1, 1, 1, 1.4, 1, 1, 1, 1], [W, D, D, D, D, D, D, D, D, O]),
        ([1.6, 1, 1, 1, 1], [W, W, W, W, O]),
        ([3, 3, 1.6, 1.6], [W, D, D, D]),
    ],
)
def test_hysteresis(levels: list[float], expected: list[str]) -> None:
    assert states(levels) == expected


def test_reasons_name_every_alarming_check() -> None:
    checks = [Check("a", 3, "one", 200), Check("b", 2, "two", 200), Check("c", 1, "three", 200)]
    alarm = Alarm(DriftState.OK, "", "").after(checks, NOW)
    assert alarm.reason == "one; two"
    assert alarm.since.startswith("2026-01-01T00:00:00")
    # It stays while the alarm lasts, although nothing alarms just now.
    assert alarm.after([Check("a", 1, "calm", 200)], NOW).reason == "one; two"
    assert Alarm.from_dict({**vars(alarm), "state": "watch"}) == alarm
