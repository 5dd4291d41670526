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


LOCK_FILE = "/run/setup-board.lock"
"""Any user could hold a lock on a file or folder that all may read."""


@contextlib.contextmanager
def exclusive(layout: Layout) -> Iterator[None]:
    """Hold the lock until the block or the process ends.

    A board's lock (flock(2)) is on a file that only root can open. Below another root that folder itself is locked, so
    no file is left behind.

    Raises:
        BusyError: another process holds the lock.
    """
    if layout.is_live:
        descriptor = os.open(LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    else:
        os.makedirs(layout.root, exist_ok=True)
        descriptor = os.open(layout.root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(
                f"{layout.root}: another setup-board is changing this board; wait until it ends "
                "(pgrep -af setup-board shows it), then run the command again"
            ) from None
        yield
    finally:
        os.close(descriptor)
