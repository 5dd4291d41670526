"""Counts on disk the starts that ended while a device was tried, because a driver may crash or hang the machine."""

import atexit
import contextlib
import json
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edge_runtime.atomic import write_atomic
from edge_runtime.inference.engine import Engine
from edge_runtime.model.profile import driver_versions, profile_path

MOST_ATTEMPTS = 3
"""A device is given up once this many starts ended while it was tried: it crashed, or a user stopped it."""

SETTLED_S = 300.0
"""A start is forgotten when the device still answers after this long: more than the three minutes that the watchdog
needs to end a service whose device hangs (`run.STUCK_S` and the unit's WatchdogSec).
"""

_starts: dict[str, contextlib.ExitStack] = {}
"""The noted starts of this process by device."""

clean_end = contextlib.ExitStack()
"""Closed when the process ends cleanly; `edge-serve` does it itself, because uvicorn lets a signal end the process."""

atexit.register(clean_end.close)


@contextlib.contextmanager
def attempt(device: str) -> Iterator[bool]:
    """Note on disk that `device` is being tried while the block runs; yield whether it may be tried.

    A driver may crash the whole machine; without the note, the next start would crash it again. After MOST_ATTEMPTS
    notes it may not be tried until its driver changes or the file is deleted. On a disk that can't be written nothing
    is noted.
    """
    path, name = attempts_path(), f"{device}, {driver_versions(device)}"
    counts = _counts(path)
    count = counts.get(name, 0)
    if count >= MOST_ATTEMPTS:
        yield False
        return
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps({**counts, name: count + 1}))
    yield True
    with contextlib.suppress(OSError):
        write_atomic(path, json.dumps({key: value for key, value in _counts(path).items() if key != name}))


def attempts_path() -> Path:
    """Return the file that counts attempts, beside the profile."""
    return profile_path().with_name("attempts.json")


def _counts(path: Path) -> dict[str, int]:
    try:
        return {str(key): int(value) for key, value in json.loads(path.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def note_start(device: str) -> bool:
    """Note, as `attempt` does, that this process uses `device`; a reload is no further start.

    Returns whether it may be used.
    """
    if device not in _starts:
        start = contextlib.ExitStack()
        if not start.enter_context(attempt(device)):
            return False
        _starts[device] = start
    return True


def forget_start(device: str) -> None:
    """Remove the note of `note_start`."""
    if start := _starts.pop(device, None):
        start.close()


def forget_start_later(device: str, engine: Engine) -> None:
    """Call `forget_start` once `engine` still answers after SETTLED_S, or when the process ends cleanly."""
    # A reload frees the engine.
    watched = weakref.ref(engine)

    def settle() -> None:
        time.sleep(SETTLED_S)
        if (used := watched()) is not None:
            side = used.contract.input_size
            used.answer(np.zeros((1, side, side, 3), np.uint8))
            forget_start(device)

    clean_end.callback(forget_start, device)
    threading.Thread(target=settle, name="settle", daemon=True).start()
