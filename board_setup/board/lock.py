"""The lock that keeps two installations from changing the same board at once."""

import contextlib
import fcntl
import os
from typing import Iterator

from board_setup.board.layout import Layout
from board_setup.errors import BoardError


class BusyError(BoardError):
    """Another `setup-board` is changing this board."""

    exit_code = 75
    """EX_TEMPFAIL of sysexits.h."""


@contextlib.contextmanager
def exclusive(layout: Layout) -> Iterator[None]:
    """Hold the lock until the block or the process ends.

    The root folder itself is locked (flock(2)), so no lock file is left behind.

    Raises:
        BusyError: another process holds the lock.
    """
    os.makedirs(layout.root, exist_ok=True)
    folder = os.open(layout.root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(
                f"{layout.root}: another setup-board is changing this board; wait until it ends "
                "(pgrep -af setup-board shows it), then run the command again"
            ) from None
        yield
    finally:
        os.close(folder)
