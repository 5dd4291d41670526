"""A private folder of pictures that are deleted after a time."""

import contextlib
import functools
import math
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from edge_runtime.atomic import write_atomic
from edge_runtime.errors import UsageError
from edge_runtime.sinks.disk import has_room

TIDY_S = 60.0
"""Time between two searches for old files while none is written."""

LONGEST_S = 100 * 365 * 86400.0
"""The longest that files may be kept."""


class KeptFiles:
    """Files that only their owner can read, of names that `pattern` matches; other files are left alone.

    Files older than `max_age_s` are deleted, and the oldest while all together are larger than `max_bytes`. The folder
    is created if missing, for its owner alone; UsageError if it can't be used, or if `max_age_s` is below 0 or above
    100 years. `beside` are names of further files that may be in a folder that others can open; it is then closed to
    them.
    """

    def __init__(
        self,
        folder: Path,
        pattern: re.Pattern[str],
        *,
        max_age_s: float,
        max_bytes: float = math.inf,
        beside: tuple[str, ...] = (),
    ) -> None:
        self.folder, self._pattern = folder, pattern
        self._max_age_s, self._max_bytes = max_age_s, max_bytes
        self._tidied = -TIDY_S
        if not 0.0 <= max_age_s <= LONGEST_S:
            raise UsageError(f"{folder}: files can't be kept for {max_age_s / 86400.0:g} days; give 0 to 36500")
        # When each file was made, on the monotonic clock: the board's own clock may be set while we run.
        self._made: dict[Path, float] = {}
        self._own: set[Path] = set()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for partial in folder.glob(".*.partial"):
                if pattern.fullmatch(partial.name[1 : -len(".partial")]):
                    partial.unlink()
            if folder.stat().st_mode & 0o077:
                if any(not pattern.fullmatch(path.name) and path.name not in beside for path in folder.iterdir()):
                    raise UsageError(f"{folder}: others can open it; run chmod 700 on it, or choose another folder")
                folder.chmod(0o700)
        except OSError as error:
            raise UsageError(f"{folder}: can't be used ({error.strerror}); choose another folder") from None
        if not os.access(folder, os.W_OK):
            raise UsageError(f"{folder}: can't be written to; choose another folder")

    @property
    def made(self) -> Mapping[Path, float]:
        """When each file was made, in monotonic seconds, as of the last `tidy` or `save`."""
        return MappingProxyType(self._made)

    def save(self, name: str, data: bytes) -> None:
        """Write a file, and delete what is too old.

        Raises:
            OSError: it can't be written, or it would fill the disk; nothing is left of it.
        """
        self.tidy(len(data))
        if not has_room(self.folder, len(data)):
            raise OSError("no room")
        path = self.folder / name
        write_atomic(path, data, opener=functools.partial(os.open, mode=0o600))
        self._made[path] = time.monotonic()
        self._own.add(path)

    def tidy(self, coming: int = 0) -> None:
        """Delete what is too old, then the oldest until there is room for `coming` bytes."""
        self._tidied = now = time.monotonic()
        made, sizes = {}, {}
        with contextlib.suppress(OSError):
            for path in self.folder.iterdir():
                # Somebody else may delete it after it was listed.
                with contextlib.suppress(OSError):
                    if self._pattern.fullmatch(path.name):
                        stat = path.stat()
                        made[path], sizes[path] = self._made.get(path, now), stat.st_size
                        if path not in self._own:
                            # The clock may have been behind when we began, and been set since.
                            made[path] = min(made[path], now - (time.time() - stat.st_mtime))
        total = sum(sizes.values()) + coming
        for path in sorted(made, key=lambda path: (made[path], path)):
            if now - made[path] > self._max_age_s or total > self._max_bytes:
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)
                    total -= sizes.pop(path)
        self._made = {path: made[path] for path in sizes}
        self._own &= sizes.keys()

    def tidy_if_due(self) -> None:
        """Delete what is too old, unless that was done within TIDY_S."""
        if time.monotonic() - self._tidied >= TIDY_S:
            self.tidy()
