"""Brings a kit to a fleet in waves; halts and rolls a wave back when its boards exceed the limits.

Every step is recorded in a file before it is taken, so that after a power cut the same command continues.
"""

import contextlib
import json
import math
import os
import re
import threading
import time
from typing import Callable, Dict, List, NamedTuple, Sequence

from board_setup.board import disk
from board_setup.board.kit import read_kit
from board_setup.board.lock import BusyError
from board_setup.errors import printable
from board_setup.workstation.deploy import Board, DeployError, bring
from board_setup.workstation.fleet.inventory import PARALLEL, FleetError, everywhere
from board_setup.workstation.fleet.limits import Health, WaveLimits, ask_health, exceeded, missing_faces

INSTALL_TIMEOUT_S = 1800.0
BUSY_PAUSE_S = 5.0
POLL_S = 60.0
"""How often the boards of a wave are asked while it is watched."""

WAITING, INSTALLED, FAILED, ROLLED_BACK = "waiting", "installed", "failed", "rolled back"

SHAPE = {
    "version": str, "waves": [int], "wave": int, "halted": str,
    "boards": {disk.ANY: {"state": str, "reason": str, "wave": int, "before": dict}},
}  # fmt: skip


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

    Attributes:
        version: the kit's version.
        waves: how many boards have it after each wave.
        wave: the number of the current wave, from 0; their number when all have passed.
        since: when the current wave was complete, in seconds since 1970; 0 before that.
        halted: why the rollout was halted, empty if it was not.
        boards: by name: state, reason, the wave in which it was tried (-1: none yet), and its health before.
    """

    def __init__(self, path: str, version: str, waves: Sequence[int], names: Sequence[str]) -> None:
        self.path, self._lock = path, threading.Lock()
        fresh = {"state": WAITING, "reason": "", "wave": -1, "before": {}}
        start = {"version": version, "waves": list(waves), "wave": 0, "since": 0.0, "halted": ""}
        values = disk.read_json(path, {**start, "boards": {name: dict(fresh) for name in names}}, SHAPE)
        if values["version"] != version:
            raise FleetError(f"{path}: is the record of {values['version']}; name another file with --state")
        if values["waves"] != list(waves):
            raise FleetError(f"{path}: was begun with other --waves or boards; name another file with --state")
        self.version, self.waves, self.wave = values["version"], values["waves"], values["wave"]
        self.since, self.halted, self.boards = float(values["since"]), values["halted"], values["boards"]

    def save(self) -> None:
        """Write the record."""
        with self._lock:
            names = ("version", "waves", "wave", "since", "halted", "boards")
            disk.write(self.path, json.dumps({name: getattr(self, name) for name in names}, indent=1))

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


class Pace(NamedTuple):
    """How fast a rollout goes: boards at once, seconds that each wave is watched, and between two looks at it."""

    parallel: int = PARALLEL
    watch_s: float = 3600.0
    poll_s: float = POLL_S


class Rollout:
    """A rollout of one kit.

    Args:
        boards: by name, in the order in which they get it.
        kit_path: the kit.
        waves: see `parse_waves`.
        limits: when a wave halts.
        pace: how fast it goes.
        state_path: the record.
        say: called with each line of progress.

    Raises:
        KitError: the kit can't be read.
        FleetError: the record belongs to another rollout.
    """

    def __init__(
        self,
        boards: Dict[str, Board],
        kit_path: str,
        *,
        waves: str,
        limits: WaveLimits,
        pace: Pace,
        state_path: str,
        say: Callable[[str], None],
    ) -> None:
        self.boards, self.kit_path, self.limits, self.pace = boards, kit_path, limits, pace
        self._say = lambda line: say(printable(line))
        self.progress = Progress(state_path, read_kit(kit_path).id, parse_waves(waves, len(boards)), list(boards))
        if list(self.progress.boards) != list(boards):
            raise FleetError(f"{state_path}: was begun with other boards; name another file with --state")

    def run(self) -> bool:
        """Bring the kit to all waves; return whether all passed. Continues where an earlier run stopped."""
        progress = self.progress
        progress.begin_wave()
        while not progress.halted and progress.wave < len(progress.waves):
            names = progress.of_wave()
            self._say(f"wave {progress.wave + 1} of {len(progress.waves)}: {len(names)} of {len(self.boards)} boards")
            reason = self._install() or self._watch()
            if reason:
                progress.halted = reason
            else:
                progress.wave, progress.since = progress.wave + 1, 0.0
            progress.save()
            if progress.wave < len(progress.waves):
                progress.begin_wave()
        if progress.halted:
            self._say(f"halted: {progress.halted}")
            self._roll_back()
            return False
        left = [name for name, board in progress.boards.items() if board["state"] != INSTALLED]
        for name in left:
            self._say(f"{name}: {progress.boards[name]['reason']}")
        self._say(f"{progress.version} is on {len(self.boards) - len(left)} of {len(self.boards)} boards")
        return not left

    def _install(self) -> str:
        """Install the kit on the boards of the wave that lack it; return the limit that failures exceed."""
        progress = self.progress
        if not progress.since:
            everywhere(progress.of_wave(WAITING), self._install_on, self.pace.parallel)
            progress.since = time.time()
            progress.save()
        failed = progress.of_wave(FAILED)
        if len(failed) > self.limits.failed:
            reason = progress.boards[failed[0]]["reason"]
            return f"installing failed on {len(failed)} (limit {self.limits.failed}): {failed[0]}: {reason}"
        if not progress.of_wave(INSTALLED):
            # A wave that nobody has seen proves nothing; boards that are away get another try by the same command.
            progress.since = 0.0
            progress.save()
            raise FleetError(f"no board of wave {progress.wave + 1} can be reached; run the same command again later")
        return ""

    def _install_on(self, name: str) -> None:
        if self.progress.halted or len(self.progress.of_wave(FAILED)) > self.limits.failed:
            return
        board = self.boards[name]
        try:
            arguments, tool = bring(board, self.kit_path)
            if not self.progress.boards[name]["before"]:
                self.progress.boards[name]["before"] = self._former_health(board)
                self.progress.save()
            while (
                done := board.ask(*arguments, tool=tool, timeout_s=INSTALL_TIMEOUT_S)
            ).returncode == BusyError.exit_code:
                # Perhaps the installation that an earlier run of this command began.
                time.sleep(BUSY_PAUSE_S)
        except DeployError as error:
            self.progress.note(name, WAITING, str(error))
            self._say(f"{name}: {error}")
            return
        if done.returncode:
            self.progress.note(name, FAILED, last_line(done.stderr).replace("error: ", "", 1))
            self._say(f"{name}: {self.progress.boards[name]['reason']}")
        else:
            board.remove_folder()
            self.progress.note(name, INSTALLED)

    def _former_health(self, board: Board) -> Health:
        """Return a board's health before the installation; nothing is known of an empty board or an older tool."""
        with contextlib.suppress(DeployError):
            return ask_health(board)
        return {"version": "", "restarts": 0, "camera": False, "verdicts": {}}

    def _watch(self) -> str:
        """Watch the wave until its time is over and enough faces were judged; return the limit that it exceeds."""
        progress, told = self.progress, -math.inf
        while True:
            names = progress.of_wave(INSTALLED)
            answers = everywhere(names, lambda name: ask_health(self.boards[name]), self.pace.parallel)
            now = {name: found for name, found in answers.items() if not isinstance(found, DeployError)}
            before = {name: progress.boards[name]["before"] for name in now}
            reason = exceeded(self.limits, progress.version, before, now)
            left_s = progress.since + self.pace.watch_s - time.time()
            missing = missing_faces(self.limits, before, now)
            if reason or (left_s <= 0 and not missing and now):
                return reason
            if time.monotonic() - told > 600:
                told = time.monotonic()
                faces = f", until {missing} more faces were judged" if missing else ""
                self._say(f"watching {len(now)} of {len(names)} boards for {max(0.0, left_s) / 60:.0f} minutes{faces}")
            time.sleep(min(self.pace.poll_s, left_s) if left_s > 0 else self.pace.poll_s)

    def _roll_back(self) -> None:
        """Return the boards of the halted wave to their former version."""
        progress = self.progress
        everywhere(progress.of_wave(INSTALLED, WAITING), self._roll_back_on, self.pace.parallel)
        left = progress.of_wave(INSTALLED)
        for name in left:
            self._say(f"{name}: not rolled back ({progress.boards[name]['reason']}); run the same command again")
        self._say(f"{len(progress.of_wave(ROLLED_BACK))} boards are back at their former version")

    def _roll_back_on(self, name: str) -> None:
        progress = self.progress
        if progress.boards[name]["state"] == WAITING and not progress.boards[name]["before"]:
            # Never touched.
            return
        try:
            while (
                done := self.boards[name].ask("rollback", "--from", progress.version, timeout_s=INSTALL_TIMEOUT_S)
            ).returncode == BusyError.exit_code:
                time.sleep(BUSY_PAUSE_S)
        except DeployError as error:
            progress.note(name, progress.boards[name]["state"], str(error))
            return
        if done.returncode:
            progress.note(name, INSTALLED, last_line(done.stderr))
        else:
            progress.note(name, ROLLED_BACK, last_line(done.stdout))


def last_line(text: str) -> str:
    """Return the last line of what a command printed."""
    return (text.strip().splitlines() or ["it printed nothing"])[-1]


def default_state(inventory: str, version: str) -> str:
    """Return the file of a rollout's record: beside the inventory."""
    return f"{os.path.splitext(inventory)[0]}-{version}.json"
