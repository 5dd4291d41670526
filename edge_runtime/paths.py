"""The folders for state and caches of this user or service."""

import os
from pathlib import Path

APP = "deepfake-edge"


def state_folder() -> Path:
    """Return systemd's `STATE_DIRECTORY` for a service, else the user's XDG state folder; it may not exist yet."""
    return _folder("STATE_DIRECTORY", "XDG_STATE_HOME", "~/.local/state")


def cache_folder() -> Path:
    """Return systemd's `CACHE_DIRECTORY` for a service, else the user's XDG cache folder; it may not exist yet."""
    return _folder("CACHE_DIRECTORY", "XDG_CACHE_HOME", "~/.cache")


def _folder(service: str, xdg: str, default: str) -> Path:
    if folders := os.environ.get(service):
        return Path(folders.split(":")[0])
    return Path(os.environ.get(xdg) or default).expanduser() / APP
