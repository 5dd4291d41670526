"""The inventory: which boards there are, in the order in which they get new versions.

ssh = "ssh -i fleet"

[boards]
door-001 = "edge@192.0.2.1"
door-002 = { host = "edge@192.0.2.2", ssh = "ssh -p 2222" }
"""

import contextlib
import fcntl
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Callable, Dict, Iterable, Iterator, Optional, TypeVar

from board_setup.errors import BoardError
from board_setup.workstation.deploy import Board, DeployError, check_host, split_command

PARALLEL = 16

QUICK = " -o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=15"
"""Added to every ssh command, so that a board that is away does not hold up the others; earlier options win."""

Answer = TypeVar("Answer")


class FleetError(BoardError):
    """The inventory or the record of a rollout can't be used."""


def read_inventory(path: str) -> Dict[str, Board]:
    """Return the boards by name, in order.

    Raises:
        FleetError: it can't be read, has an unknown or malformed entry, names no board, or names one twice.
    """
    try:
        import tomllib
    except ModuleNotFoundError:
        raise FleetError("setup-board fleet needs Python 3.11 or newer on the workstation") from None
    try:
        with open(path, "rb") as file:
            values = tomllib.load(file)
    except (OSError, ValueError) as error:
        raise FleetError(f"{path}: can't be read ({getattr(error, 'strerror', None) or error})") from None
    if unknown := sorted(set(values) - {"boards", "ssh"}):
        raise FleetError(f"{path}: {unknown[0]}: unknown; give ssh, and the boards below [boards]")
    entries, ssh = values.get("boards"), values.get("ssh", "ssh")
    if not isinstance(entries, dict) or not entries:
        raise FleetError(f'{path}: names no board; write below [boards] lines such as door-001 = "edge@192.0.2.1"')
    boards = {name: _board(entry, ssh, f"{path}: {name}") for name, entry in entries.items()}
    places: Dict[object, str] = {}
    for name, board in boards.items():
        place = (board.host.rpartition("@")[2].lower(), board.ssh, board.root)
        if places.setdefault(place, name) != name:
            raise FleetError(f"{path}: {name} is the same board as {places[place]}; remove one of them")
    return boards


def _board(entry: object, ssh: object, where: str) -> Board:
    fields = {"host": entry} if isinstance(entry, str) else entry
    if not isinstance(fields, dict) or not set(fields) <= {"host", "ssh", "root"} or "host" not in fields:
        raise FleetError(f'{where}: give "user@board" or {{ host = "user@board", ssh = "ssh -p 2222" }}')
    fields = {"ssh": ssh, "root": "/", **fields}
    if not all(isinstance(value, str) for value in fields.values()):
        raise FleetError(f"{where}: host and ssh are texts; put them between quotes")
    try:
        split_command(fields["ssh"])
        return Board(check_host(fields["host"]), fields["ssh"], fields["root"], QUICK)
    except DeployError as error:
        raise FleetError(f"{where}: {error}") from None


@contextlib.contextmanager
def alone(path: str) -> Iterator[None]:
    """Hold the lock of an inventory, so that two rollouts don't mix.

    It is a file beside the inventory that stays there: editors replace the inventory itself, and its lock with it.

    Raises:
        FleetError: another one holds it.
    """
    with open(os.path.realpath(path) + ".lock", "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FleetError(
                f"{path}: another fleet deploy with this inventory is running; wait until it ends"
            ) from None
        yield


def everywhere(
    names: Iterable[str], work: Callable[[str], Answer], parallel: int, stop: Optional[threading.Event] = None
) -> "Dict[str, Answer | DeployError]":
    """Return what `work` returns for each board, or why a board can't be reached.

    Ctrl-C sets `stop`, and is raised once `work` has ended on all boards where it began.
    """

    def attempt(name: str) -> "Answer | DeployError":
        try:
            return work(name)
        except DeployError as error:
            return error

    names = list(names)
    with ThreadPoolExecutor(parallel) as pool:
        try:
            return dict(zip(names, pool.map(attempt, names)))
        except KeyboardInterrupt:
            if stop:
                stop.set()
            raise
