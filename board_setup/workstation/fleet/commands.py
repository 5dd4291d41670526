"""The commands `setup-board fleet deploy` and `setup-board fleet status`."""

import argparse
import contextlib
from typing import Callable

from board_setup.board.install import tell
from board_setup.board.kit import read_kit
from board_setup.workstation.deploy import DeployError, sharing_connections
from board_setup.workstation.fleet.inventory import PARALLEL, alone, everywhere, read_inventory
from board_setup.workstation.fleet.limits import WaveLimits, ask_health
from board_setup.workstation.fleet.rollout import Pace, Rollout, default_state
from board_setup.workstation.fleet.screen import draw

WAVES = "1,5%,25%,100%"


def between(kind: Callable[[str], float], low: float, high: float) -> Callable[[str], float]:
    """Return a type for argparse: an int or float in this range."""

    def parse(text: str) -> float:
        with contextlib.suppress(ValueError):
            if low <= kind(text) <= high:
                return kind(text)
        raise argparse.ArgumentTypeError(f"{text}: give a number from {low} to {high}")

    return parse


def add_fleet_commands(add: Callable[..., argparse.ArgumentParser]) -> None:
    """Add the commands; `add` is `board_setup.cli.add_command` without its first argument."""
    limits, pace = WaveLimits(), Pace()
    share, count, minutes = between(float, 0, 1), between(int, 0, 1000000), between(float, 0, 100000)
    command = add(deploy_fleet, "deploy", "setup-board fleet deploy --inventory hosts.toml --kit kit.tar")
    command.add_argument("--kit", required=True, help="the kit to install")
    command.add_argument(
        "--waves",
        default=WAVES,
        help="how many boards have it after each wave (default: %(default)s)",
    )
    command.add_argument("--state", metavar="FILE", help="the rollout's record (default: beside the inventory)")
    command.add_argument(
        "--watch-minutes",
        type=minutes,
        default=pace.watch_s / 60,
        help="how long each wave is watched (default: %(default)g)",
    )
    command.add_argument(
        "--poll-seconds",
        type=between(float, 0.1, 3600),
        default=pace.poll_s,
        help="seconds between status checks (default: %(default)g)",
    )
    command.add_argument(
        "--max-failed",
        type=count,
        default=limits.failed,
        help="boards on which the installation may fail (default: %(default)s)",
    )
    command.add_argument(
        "--max-restarts",
        type=count,
        default=limits.restarts,
        help="restarts of the service tolerated on one board (default: %(default)s)",
    )
    command.add_argument(
        "--max-drift", type=count, default=limits.drift, help="boards that may start to drift (default: %(default)s)"
    )
    command.add_argument(
        "--max-disagreement",
        type=share,
        default=limits.disagreement,
        help="share of faces that may be judged differently than before (default: %(default)g)",
    )
    command.add_argument(
        "--min-faces",
        type=count,
        default=limits.faces,
        help="faces a wave must judge before it passes (default: %(default)s)",
    )
    command.add_argument(
        "--max-away",
        type=share,
        default=limits.away,
        help="share of a wave's boards that need not answer after the installation (default: %(default)g)",
    )
    status = add(show_fleet, "status", "setup-board fleet status --inventory hosts.toml")
    for each in (command, status):
        each.add_argument("--inventory", required=True, metavar="TOML", help="the boards and how ssh reaches them")
        each.add_argument(
            "--parallel", type=between(int, 1, 1000), default=PARALLEL, help="boards at once (default: %(default)s)"
        )


def deploy_fleet(options: argparse.Namespace) -> int:
    """Bring a kit to all boards in waves, and halt when a wave exceeds the limits.

    Each wave is installed in parallel and watched; if it exceeds a limit, its boards return to their former version and
    no further board gets the new one. After an interruption the same command continues. Exits with 1 if it halted or
    boards are left.
    """
    limits = WaveLimits(
        failed=options.max_failed,
        restarts=options.max_restarts,
        drift=options.max_drift,
        disagreement=options.max_disagreement,
        faces=options.min_faces,
        away=options.max_away,
    )
    boards = read_inventory(options.inventory)
    with alone(options.inventory), sharing_connections(boards) as boards:
        rollout = Rollout(
            boards,
            options.kit,
            waves=options.waves,
            limits=limits,
            pace=Pace(options.parallel, 60 * options.watch_minutes, options.poll_seconds),
            state_path=options.state or default_state(options.inventory, read_kit(options.kit).id),
            say=tell,
        )
        return 0 if rollout.run() else 1


def show_fleet(options: argparse.Namespace) -> int:
    """Show all boards on one screen: a letter for each, and a line for those that need attention.

    Exits with 1 if a board can't be reached.
    """
    boards = read_inventory(options.inventory)
    answers = everywhere(boards, lambda name: ask_health(boards[name]), options.parallel)
    print(draw(answers))
    return 1 if any(isinstance(found, DeployError) for found in answers.values()) else 0
