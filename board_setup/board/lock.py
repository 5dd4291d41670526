"""One at a time: two that change the same board would take each other's files away."""

import contextlib
import fcntl
import os
from typing import Iterator

from board_setup.board.layout import Layout
from board_setup.errors import BoardError


class BusyError(BoardError):
    """Another `setup-board` is changing this board."""


@contextlib.contextmanager
def alone(layout: Layout) -> Iterator[None]:
    """Keep other installations, undoings and rollbacks away until the block or this process ends, however it ends.

    The root folder itself is locked (flock(2)), so that no file is left of it.

    Raises:
        BusyError: another one is at work.
    """
    os.makedirs(layout.root, exist_ok=True)
    folder = os.open(layout.root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(
                f"{layout.root}: another setup-board is at work here; wait until it is done "
                "(what it is: pgrep -af setup-board), then say the same again"
            ) from None
        yield
    finally:
        os.close(folder)
