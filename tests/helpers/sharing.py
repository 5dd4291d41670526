"""Expensive fixtures made once for all pytest-xdist workers."""

import fcntl
from collections.abc import Callable
from pathlib import Path

import pytest


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """Return a folder that `make` filled in whichever worker came first; the others wait for it and reuse it.

    Args:
        factory: pytest's `tmp_path_factory`.
        name: the folder's name, unique among all shared fixtures.
        make: fills the folder it is given; the folder does not exist yet and its parent does.
    """
    base = factory.getbasetemp()
    root = base.parent if base.name.startswith("popen-") else base
    folder, done = root / "shared" / name, root / "shared" / f"{name}.done"
    folder.parent.mkdir(exist_ok=True)
    with (folder.parent / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            make(folder)
            done.touch()
    return folder
