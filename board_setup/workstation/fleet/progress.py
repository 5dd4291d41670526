"""The record of a rollout: what each board got, written before each step, so that the same command continues it."""

import json
import math
import re
import threading
from typing import Any, Dict, List, Sequence

from board_setup.board import disk
from board_setup.workstation.fleet.inventory import FleetError

WAITING, INSTALLED, FAILED, ROLLED_BACK = "waiting", "installed", "failed", "rolled back"

SHAPE = {
    "version": str, "waves": str, "wave": int, "halted": str,
    "boards": {disk.ANY: {"state": str, "reason": str, "wave": int, "before": dict}},
}  # fmt: skip

REMEDY = (
    "it told whether this rollout was halted, and what its boards ran before; restore it from a backup, or look at the "
    "boards with setup-board fleet status, return those that must not keep this version with setup-board rollback, and "
    "bring the fleet another kit"
)


def parse_waves(text: str, boards: int) -> List[int]:
    """Return how many boards have the version after each wave of a text such as 1,5%,25%,100%.

    A share is rounded down, but a wave brings at least one more board than the wave before.

    Raises:
        FleetError: it is malformed, or does not grow.
    """
    counts: List[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d{1,6}(?:\.\d+)?)(%?)\s*", part)
        if not found or (not found[2] and "." in found[1]) or (found[2] and float(found[1]) > 100):
            raise FleetError(
                f"--waves {text}: {part!r} is not a number or share of boards; give for example 1,5%,25%,100%"
            )
        count = math.floor(boards * float(found[1]) / 100) if found[2] else int(found[1])
        counts.append(min(max(count, 1 + (counts[-1] if counts else 0)), boards))
    if counts != sorted(counts) or counts[0] < 1:
        raise FleetError(f"--waves {text}: each wave must be larger than the one before")
    return sorted(set(counts))


class Progress:
    """The record of a rollout.

    Boards that were added to the inventory meanwhile are waiting, those that were removed are forgotten.

    Attributes:
        version: the kit's version.
        waves: how many boards have it after each wave.
        wave: the number of the current wave, from 0; their number when all have passed.
        since: when the current wave was complete, in seconds since 1970; 0 before that.
        halted: why the rollout was halted, empty if it was not.
        boards: by name: state, reason, the wave in which it was tried (-1: none yet), and its health before.

    Args:
        path: the file.
        version: the kit's version.
        waves: see `parse_waves`.
        names: the boards in order.

    Raises:
        FleetError: the file is the record of another version or of other waves, or was written by an older tool.
    """

    def __init__(self, path: str, version: str, waves: str, names: Sequence[str]) -> None:
        self.path, self._lock = path, threading.Lock()
        start = {"version": version, "waves": waves, "wave": 0, "since": 0.0, "halted": "", "boards": {}}
        if isinstance(disk.read_json(path, start, {}, remedy=REMEDY).get("waves"), list):
            raise FleetError(f"{path}: written by an earlier version; finish that rollout with that version")
        values = disk.read_json(path, start, SHAPE, remedy=REMEDY)
        for name, here in (("version", version), ("waves", waves)):
            if values[name] != here:
                raise FleetError(f"{path}: is the record of {name} {values[name]}; name another file with --state")
        fresh = {"state": WAITING, "reason": "not tried yet", "wave": -1, "before": {}}
        self.boards: Dict[str, Dict[str, Any]] = {name: values["boards"].get(name, dict(fresh)) for name in names}
        self._waves, self.waves = waves, parse_waves(waves, len(names))
        self.version, self.wave = version, min(values["wave"], len(self.waves))
        self.since, self.halted = float(values["since"]), values["halted"]

    def save(self) -> None:
        """Write the record."""
        with self._lock:
            names = ("version", "wave", "since", "halted", "boards")
            values = {"waves": self._waves, **{name: getattr(self, name) for name in names}}
            disk.write(self.path, json.dumps(values, indent=1))

    def note(self, name: str, state: str, reason: str = "") -> None:
        """Record the state of a board."""
        self.boards[name].update(state=state, reason=reason)
        self.save()

    def of_wave(self, *states: str) -> List[str]:
        """Return the boards that were tried in the current wave, or those of them in one of these states."""
        return [
            name
            for name, board in self.boards.items()
            if board["wave"] == self.wave and (not states or board["state"] in states)
        ]

    def begin_wave(self) -> None:
        """Take into the current wave the boards that are due, among them those that could not be reached before."""
        if self.wave == len(self.waves) and any(board["state"] == WAITING for board in self.boards.values()):
            self.wave, self.since = self.wave - 1, 0.0
        if self.wave < len(self.waves) and not self.since:
            for name in list(self.boards)[: self.waves[self.wave]]:
                if self.boards[name]["state"] == WAITING:
                    self.boards[name]["wave"] = self.wave
        self.save()
