"""Keeps frames in order where several threads work on them."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """Lets the frames of a source pass one at a time, in order."""

    def __init__(self) -> None:
        self._next, self._ended, self._changed = 0, set[int](), threading.Condition()

    @contextmanager
    def turn(self, number: int) -> Iterator[None]:
        """Wait until all turns before `number` have ended."""
        with self._changed:
            self._changed.wait_for(lambda: self._next == number)
        try:
            yield
        finally:
            self.end(number)

    def end(self, number: int) -> None:
        """End a turn, whether it has begun or not; ending it twice is harmless."""
        with self._changed:
            if number >= self._next:
                self._ended.add(number)
            while self._next in self._ended:
                self._ended.remove(self._next)
                self._next += 1
            self._changed.notify_all()
