"""Where state and caches lie."""

import pwd
from pathlib import Path

from edge_runtime.paths import cache_folder, state_folder


def test_service_without_a_home_has_no_state(monkeypatch) -> None:
    for name in ("HOME", "STATE_DIRECTORY", "CACHE_DIRECTORY", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    assert not state_folder().exists()
    monkeypatch.setenv("CACHE_DIRECTORY", "/var/cache/deepfake-edge-web")
    assert cache_folder() == Path("/var/cache/deepfake-edge-web")
