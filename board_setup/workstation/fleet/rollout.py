"""Brings a kit to a fleet in waves; halts and rolls a wave back when its boards exceed the limits.

Every step is recorded in a file before it is taken, so that after a power cut the same command continues.
"""

import contextlib
import math
import os
import subprocess
import threading
import time
from typing import Callable, Dict, List, NamedTuple, Optional, Set

from board_setup.board.kit import read_kit
from board_setup.board.lock import BusyError
from board_setup.errors import printable
from board_setup.workstation.deploy import Board, DeployError, bring, last_line, require_rsync, tool_beside
from board_setup.workstation.fleet.inventory import PARALLEL, FleetError, everywhere
from board_setup.workstation.fleet.limits import Health, NoStatusError, WaveLimits, ask_health, exceeded, missing_faces
from board_setup.workstation.fleet.progress import FAILED, INSTALLED, ROLLED_BACK, WAITING, Progress

INSTALL_TIMEOUT_S = 1800.0
BUSY_PAUSE_S = 5.0
TELL_S = 60.0
"""How often a line says how far an installation is, and every tenth time how far the watch is."""

NO_FORMER_VERSION = (
    "no version is known to have run there before: bring another kit to it with setup-board deploy, or remove this one "
    "there with: sudo setup-board install --undo"
)


class Pace(NamedTuple):
    """How fast a rollout goes: boards at once, seconds that each wave is watched, and between two looks at it."""

    parallel: int = PARALLEL
    watch_s: float = 3600.0
    poll_s: float = 60.0


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
        DeployError: the tool beside the kit, or rsync, is missing here.
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
        tool_beside(kit_path)
        require_rsync()
        self.boards, self.kit_path, self.limits, self.pace = boards, kit_path, limits, pace
        self._say, self._told = lambda line: say(printable(line)), 0.0
        self._stop = threading.Event()
        self._begun: Set[str] = set()
        self.progress = Progress(state_path, read_kit(kit_path).id, waves, list(boards))

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
            self._told = time.monotonic()
            try:
                everywhere(progress.of_wave(WAITING), self._install_on, self.pace.parallel, self._stop)
            except KeyboardInterrupt:
                for name in progress.of_wave(WAITING):
                    when = "during its installation" if name in self._begun else "before its installation: unchanged"
                    progress.note(name, WAITING, f"stopped {when}")
                raise
            progress.since = time.time()
            progress.save()
        failed = progress.of_wave(FAILED)
        # Failed boards are not tried again, so a wave of which all have failed is over too.
        if len(failed) > self.limits.failed or (failed and failed == progress.of_wave()):
            reason = progress.boards[failed[0]]["reason"]
            limit = f"(limit {self.limits.failed})" if len(failed) > self.limits.failed else "of the wave's boards"
            return f"installing failed on {len(failed)} {limit}: {failed[0]}: {reason}"
        if progress.of_wave(WAITING) and not progress.of_wave(INSTALLED):
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
            self._check_stop(board)
            arguments, tool = bring(board, self.kit_path)
            self._check_stop(board)
            if not self.progress.boards[name]["before"]:
                self.progress.boards[name]["before"] = self._former_health(board)
                self.progress.save()
            self._check_stop(board)
            self._begun.add(name)
            done = self._ask_when_free(board, *arguments, tool=tool)
        except DeployError as error:
            self.progress.note(name, WAITING, str(error))
            if not self._stop.is_set():
                self._say(f"{name}: {error}")
            return
        if done.returncode:
            self.progress.note(name, FAILED, last_line(done.stderr).replace("error: ", "", 1))
            self._say(f"{name}: {self.progress.boards[name]['reason']}")
        else:
            board.remove_folder()
            self.progress.note(name, INSTALLED)
            if time.monotonic() - self._told > TELL_S:
                self._told = time.monotonic()
                self._say(f"installed on {len(self.progress.of_wave(INSTALLED))} of {len(self.progress.of_wave())}")

    def _former_health(self, board: Board) -> Health:
        """Return a board's health before the installation; nothing is known of an empty board or an older tool."""
        with contextlib.suppress(NoStatusError):
            return ask_health(board)
        return {"version": "", "restarts": 0, "camera": False, "verdicts": {}}

    def _watch(self) -> str:
        """Watch the wave until its time is over and enough faces were judged; return the limit that it exceeds."""
        progress, told = self.progress, -math.inf
        while True:
            names = progress.of_wave(INSTALLED)
            if not names:
                # Boards were removed from the inventory, and those before them fill this wave.
                return ""
            answers = everywhere(names, lambda name: ask_health(self.boards[name]), self.pace.parallel)
            now = {name: found for name, found in answers.items() if not isinstance(found, DeployError)}
            before = {name: progress.boards[name]["before"] for name in now}
            reason = exceeded(self.limits, progress.version, before, now)
            left_s = progress.since + self.pace.watch_s - time.time()
            missing = missing_faces(self.limits, before, now)
            away = [name for name in names if name not in now]
            too_many = not now or len(away) > self.limits.away * len(names)
            if reason or (left_s <= 0 and not missing and not too_many):
                return reason
            if time.monotonic() - told > 10 * TELL_S:
                told = time.monotonic()
                until = f", until {missing} more faces were judged" if missing else ""
                until += f"; {self._way_out(away)}" if too_many else ""
                self._say(f"watching {len(now)} of {len(names)} boards for {max(0.0, left_s) / 60:.0f} minutes{until}")
            time.sleep(min(self.pace.poll_s, left_s) if left_s > 0 else self.pace.poll_s)

    def _way_out(self, away: List[str]) -> str:
        """Return whom the watch waits for, and what ends that."""
        more = f" and {len(away) - 5} more" if len(away) > 5 else ""
        larger = " or with a larger --max-away" if self.limits.away < 1 else ""
        return (
            f"waiting for {', '.join(away[:5])}{more}; bring them back, or run the same command again after you have "
            f"removed them from the inventory{larger}"
        )

    def _roll_back(self) -> None:
        """Return the boards of the halted wave to their former version, and name those that keep the new one."""
        progress = self.progress
        # An installation that failed, or whose connection broke, may have switched the version.
        touched = [name for name in progress.of_wave(INSTALLED, FAILED, WAITING) if progress.boards[name]["before"]]
        former = {name: progress.boards[name]["before"]["version"] for name in touched}
        for name in touched:
            if former[name] == progress.version:
                self._say(f"{name}: not rolled back: it ran {progress.version} before this rollout too")
        changed = [name for name in touched if former[name] != progress.version]
        for name, problem in everywhere(changed, self._roll_back_on, self.pace.parallel, self._stop).items():
            if problem:
                again = former[name] or isinstance(problem, DeployError)
                remedy = "run the same command again" if again else NO_FORMER_VERSION
                self._say(f"{name}: not rolled back ({problem}); {remedy}")
        self._say(f"{len(progress.of_wave(ROLLED_BACK))} boards are back at their former version")

    def _roll_back_on(self, name: str) -> str:
        """Return a board to its former version if it has the new one; return why it could not be."""
        done = self._ask_when_free(self.boards[name], "rollback", "--from", self.progress.version)
        if done.returncode:
            return last_line(done.stderr).replace("error: ", "", 1)
        reasons = (self.progress.boards[name]["reason"], last_line(done.stdout))
        self.progress.note(name, ROLLED_BACK, "; ".join(filter(None, reasons)))
        return ""

    def _check_stop(self, board: Board) -> None:
        """Raise DeployError after Ctrl-C, so that no further command begins on a board."""
        if self._stop.is_set():
            raise DeployError(f"{board.host}: stopped")

    def _ask_when_free(
        self, board: Board, *arguments: str, tool: Optional[str] = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run this tool on a board, after an installation that an earlier run of this command perhaps began there.

        Raises:
            DeployError: the board can't be reached, or is not free within INSTALL_TIMEOUT_S.
        """
        end = time.monotonic() + INSTALL_TIMEOUT_S
        while True:
            self._check_stop(board)
            done = board.ask(*arguments, tool=tool, timeout_s=INSTALL_TIMEOUT_S)
            if done.returncode != BusyError.exit_code:
                return done
            if time.monotonic() > end:
                raise DeployError(f"{board.host}: {last_line(done.stderr)}")
            self._stop.wait(BUSY_PAUSE_S)


def default_state(inventory: str, version: str) -> str:
    """Return the file of a rollout's record: beside the inventory."""
    return f"{os.path.splitext(inventory)[0]}-{version}.json"
