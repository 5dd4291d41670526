"""The alarm: a state that rises after two alarming comparisons and falls after several calm ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from edge_runtime.judging.results import iso_time
from edge_runtime.monitoring.checks import CLEAR, DRIFT, WATCH, Check

CONFIRMED = 2
"""Comparisons in a row that must reach DRIFT."""

CALM = 4
"""Comparisons in a row that must stay below CLEAR before an alarm ends: as many as the window has blocks."""


class DriftState(str, Enum):
    """What the monitor says; `unknown` until it has seen enough faces, and for bundles without reference statistics."""

    UNKNOWN = "unknown"
    OK = "ok"
    WATCH = "watch"
    DRIFT = "drift"


ORDER = tuple(DriftState)


@dataclass(frozen=True)
class Alarm:
    """The state, why, and since when.

    Attributes:
        high, calm: comparisons in a row that reached DRIFT, and that stayed below CLEAR.
    """

    state: DriftState
    reason: str
    since: str
    high: int = 0
    calm: int = 0

    def after(self, checks: Sequence[Check], now: datetime) -> "Alarm":
        """Return the alarm after one more comparison, whose `checks` begin with the highest level."""
        worst = checks[0]
        high = self.high + 1 if worst.level >= DRIFT else 0
        calm = self.calm + 1 if worst.level < CLEAR else 0
        wanted = DriftState.DRIFT if high >= CONFIRMED else DriftState.WATCH if worst.level >= WATCH else DriftState.OK
        state = self.state if self.state in (DriftState.WATCH, DriftState.DRIFT) else wanted
        if calm >= CALM or ORDER.index(wanted) > ORDER.index(state):
            state = wanted
        alarming = [check.reason for check in checks if check.level >= WATCH][:3]
        reason = self.reason if state is self.state else "back to usual"
        if state is DriftState.OK:
            reason = "faces are like those the detector was measured on"
        elif alarming:
            reason = "; ".join(alarming)
        since = self.since if state is self.state else iso_time(now)
        return Alarm(state, reason, since, high, calm)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Alarm":
        """Read the fields of an alarm; raises ValueError, KeyError or TypeError if they are not that."""
        texts = str(values["reason"]), str(values["since"])
        return cls(DriftState(values["state"]), *texts, int(values["high"]), int(values["calm"]))
