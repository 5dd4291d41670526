"""When a wave halts: failed installations, restarts, drift, and disagreement with the version before."""

import calendar
import contextlib
import json
import time
from typing import Any, Dict, Mapping, NamedTuple, Sequence

from board_setup.board.disk import ANY, has_shape
from board_setup.board.doctor.health import VERDICTS
from board_setup.workstation.deploy import Board, DeployError

Health = Dict[str, Any]
"""What `setup-board status --json` prints; see `board_setup.board.doctor.health`."""

SHAPE = {"version": str, "restarts": int, "camera": bool, "verdicts": {ANY: int}}


class WaveLimits(NamedTuple):
    """What a wave may show at most.

    Attributes:
        failed: boards on which the version can't be installed, fails its golden pictures or does not run.
        restarts: of the service on one board; one without a camera restarts until it has one, and is left out.
        drift: boards whose faces drift that did not before.
        disagreement: share of faces, see `disagreement`.
        faces: that many must have been judged before a wave passes, if its boards judged as many before.
        away: share of the boards with the new version that need not answer for the wave to pass.
    """

    failed: int = 0
    restarts: int = 3
    drift: int = 0
    disagreement: float = 0.1
    faces: int = 200
    away: float = 0.1


class NoStatusError(DeployError):
    """A board answers, but does not tell its status: nothing is installed there, or only an older tool."""


def ask_health(board: Board) -> Health:
    """Return a board's health.

    Raises:
        DeployError: it can't be reached.
        NoStatusError: it has no tool, or one that is older than this question.
    """
    done = board.ask("status", "--json")
    try:
        found = json.loads(done.stdout)
    except ValueError:
        found = None
    if not has_shape(found, SHAPE):
        lines = (done.stderr.strip() or "no JSON").splitlines()
        raise NoStatusError(f"{board.host}: does not tell its status ({lines[-1]}); deploy a new kit to it by itself")
    return {**found, "clock_ahead_s": clock_ahead_s(found)}


def clock_ahead_s(found: Health) -> float:
    """Return how far a board's clock is ahead of this one in seconds, 0 if its tool is too old to tell."""
    with contextlib.suppress(KeyError, TypeError, ValueError, OverflowError):
        return calendar.timegm(time.strptime(found["time"], "%Y-%m-%dT%H:%M:%SZ")) - time.time()
    return 0.0


def verdicts_of(boards: Sequence[Health]) -> Dict[str, int]:
    """Return how many faces got which verdict on all boards together."""
    return {verdict: sum(board["verdicts"].get(verdict, 0) for board in boards) for verdict in VERDICTS}


def disagreement(before: Mapping[str, int], now: Mapping[str, int]) -> float:
    """Return the share of faces that two versions must judge differently, in [0, 1]; 0 if one has judged none.

    It is the total variation distance between their verdicts, which no coupling of the two can fall below (Levin and
    Peres, Markov Chains and Mixing Times, proposition 4.7), so versions that disagree in both directions show less.
    """
    totals = sum(before.values()), sum(now.values())
    if 0 in totals:
        return 0.0
    return sum(abs(before[name] / totals[0] - now[name] / totals[1]) for name in VERDICTS) / 2


def exceeded(limits: WaveLimits, version: str, before: Mapping[str, Health], now: Mapping[str, Health]) -> str:
    """Return which limit boards of a wave exceed, empty if none; boards that can't be asked are in neither mapping.

    Args:
        limits: the limits.
        version: what the boards should run.
        before: their health before the version was installed.
        now: their health with it.
    """
    gone = [name for name, board in now.items() if board["version"] != version]
    stopped = [name for name, board in now.items() if board["camera"] and board.get("service") == "failed"]
    if len({*gone, *stopped}) > limits.failed:
        return f"does not run on {', '.join(sorted({*gone, *stopped}))}"
    for name, board in now.items():
        if board["camera"] and board["restarts"] > limits.restarts:
            return f"{board['restarts']} restarts on {name} (limit {limits.restarts})"
    drifting = [name for name, board in now.items() if drifts(board) and not drifts(before[name])]
    if len(drifting) > limits.drift:
        return f"drift on {', '.join(drifting)} (limit {limits.drift}): {now[drifting[0]]['drift'].get('reason', '')}"
    then, after = verdicts_of([before[name] for name in now]), verdicts_of(list(now.values()))
    share = disagreement(then, after)
    if share > limits.disagreement and min(sum(then.values()), sum(after.values())) >= limits.faces:
        return (
            f"at least {share:.0%} of faces are judged otherwise than before (limit {limits.disagreement:.0%}): "
            f"fake {fakes(then)}, now {fakes(after)}"
        )
    return ""


def fakes(verdicts: Mapping[str, int]) -> str:
    """Return how many faces were called fake, such as "12 of 200"."""
    return f"{verdicts['fake']} of {sum(verdicts.values())}"


def drifts(board: Health) -> bool:
    """Return whether the board's faces drift."""
    return (board.get("drift") or {}).get("state") == "drift"


def missing_faces(limits: WaveLimits, before: Mapping[str, Health], now: Mapping[str, Health]) -> int:
    """Return how many faces must still be judged before the wave can pass."""
    then = sum(verdicts_of([before[name] for name in now]).values())
    if then < limits.faces:
        # Nothing to compare with: a new board, or one at a door that nobody uses.
        return 0
    return max(0, limits.faces - sum(verdicts_of(list(now.values())).values()))
