"""The folders for state, caches and settings of this user or service."""

import os
from pathlib import Path

from edge_runtime.errors import UsageError

APP = "deepfake-edge"


def state_folder() -> Path:
    """Return systemd's `STATE_DIRECTORY` for a service, else the user's XDG state folder; it may not exist yet."""
    return _folder("STATE_DIRECTORY", "XDG_STATE_HOME", "~/.local/state")


def cache_folder() -> Path:
    """Return systemd's `CACHE_DIRECTORY` for a service, else the user's XDG cache folder; it may not exist yet."""
    return _folder("CACHE_DIRECTORY", "XDG_CACHE_HOME", "~/.cache")


def config_folder() -> Path:
    """Return the user's XDG folder of settings; it may not exist yet."""
    return _folder("", "XDG_CONFIG_HOME", "~/.config")


def _folder(service: str, xdg: str, default: str) -> Path:
    if folders := os.environ.get(service):
        return Path(folders.split(":")[0])
    try:
        return Path(os.environ.get(xdg) or default).expanduser() / APP
    except RuntimeError:
        # A service of a dynamic user has no home; this folder holds nothing and can't be written to.
        return Path("/nonexistent") / APP


def expand(path: Path | str) -> Path:
    """Return `path` with a leading `~` or `~USER` replaced by that home folder.

    Raises:
        UsageError: there is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UsageError(f"{path}: there is no such user; give the path of the folder") from None
