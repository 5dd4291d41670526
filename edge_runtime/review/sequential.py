"""Tells during review, as often as one likes to look, whether a shadow detector is better or worse than the one in use.

Only disagreements in which exactly one of the two says fake are reviewed, so each reviewed face shows one of them right
and the other wrong. If the new detector is no worse, it is the wrong one at most every second time. Betting against
that gains nothing in the long run, however often one looks: the capital is a test martingale, and it ever reaches 1/α
with probability α at most (Ville 1939). The bet is a mixture over fixed stakes, as in Waudby-Smith and Ramdas,
"Estimating means of bounded random variables by betting" (JRSS B 86, 2024), section 4. Standard library only.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from edge_runtime.model.contract import Verdict

ALPHA = 0.05
"""Probability, over the whole review, that a detector which is no worse is called worse; likewise for better."""

STAKES = tuple(step / 10 for step in range(1, 10))
"""Shares of the capital that are bet at each face; the capital is their mean."""


class FieldState(str, Enum):
    """What the reviewed disagreements say about the new detector."""

    OPEN = "open"
    WORSE = "worse"
    BETTER = "better"


def is_telling(old: Verdict, new: Verdict) -> bool:
    """Return whether exactly one of two verdicts is fake, so that the truth shows who is right."""
    return (old is Verdict.FAKE) != (new is Verdict.FAKE)


def capital(won: int, lost: int) -> float:
    """Return what a capital of 1 became after bets that were `won` and `lost`; infinity beyond the largest float."""
    logs = [won * math.log1p(stake) + lost * math.log1p(-stake) for stake in STAKES]
    top = max(logs)
    return math.exp(min(top, 700.0)) * sum(math.exp(log - top) for log in logs) / len(STAKES)


@dataclass(frozen=True)
class ClassTally:
    """Reviewed disagreements of one class: how often the new and how often the old detector was the wrong one."""

    new_wrong: int = 0
    old_wrong: int = 0


class FieldTest:
    """Takes reviewed disagreements in the order of their review. The first answer stays.

    False alarms and misses are bet on separately, each with half of the capital: a detector that finds more fakes but
    calls more real people fake is worse.

    Args:
        alpha: probability of calling a detector worse that is not, and better that is not.
    """

    def __init__(self, alpha: float = ALPHA) -> None:
        self._alpha = alpha
        self.state = FieldState.OPEN
        self.reviewed = 0
        self.decided_at: int | None = None
        self.reals, self.fakes = ClassTally(), ClassTally()

    def add(self, old: Verdict, new: Verdict, *, fake: bool) -> None:
        """Take one reviewed face: the two verdicts, and whether it is fake; one that tells nothing is ignored."""
        if not is_telling(old, new):
            return
        self.reviewed += 1
        new_wrong = (new is Verdict.FAKE) != fake
        tally = self.fakes if fake else self.reals
        counted = ClassTally(tally.new_wrong + new_wrong, tally.old_wrong + (not new_wrong))
        if fake:
            self.fakes = counted
        else:
            self.reals = counted
        if self.state is FieldState.OPEN:
            if self.worse >= 1.0 / self._alpha:
                self.state, self.decided_at = FieldState.WORSE, self.reviewed
            elif self.better >= 1.0 / self._alpha:
                self.state, self.decided_at = FieldState.BETTER, self.reviewed

    @property
    def worse(self) -> float:
        """The capital of the bet that the new detector is worse; 1/α decides."""
        return sum(capital(tally.new_wrong, tally.old_wrong) for tally in (self.reals, self.fakes)) / 2

    @property
    def better(self) -> float:
        """The capital of the bet that the new detector is right more often, both classes together."""
        wrong: Sequence[ClassTally] = (self.reals, self.fakes)
        return capital(sum(tally.old_wrong for tally in wrong), sum(tally.new_wrong for tally in wrong))

    def text(self) -> str:
        """Return the answer and what it rests on, in one line."""
        counts = (
            f"the new one alone is wrong about {self.reals.new_wrong} real and {self.fakes.new_wrong} fake faces, "
            f"the old one about {self.reals.old_wrong} and {self.fakes.old_wrong}"
        )
        if self.state is FieldState.OPEN:
            return f"undecided after {self.reviewed} reviewed disagreements: {counts}; review more"
        return f"the new detector is {self.state.value}, seen after {self.decided_at} reviewed disagreements: {counts}"
