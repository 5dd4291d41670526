"""OpenVINO reports nothing to its maker and writes nothing into anybody's home."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("module", ["edge_runtime.model.check", "edge_runtime.detector", "edge_runtime.web.app"])
def test_importing_the_runtime_writes_nothing_into_the_users_home(tmp_path: Path, module: str) -> None:
    environment = {**os.environ, "HOME": str(tmp_path)}
    environment.pop("XDG_CACHE_HOME", None)
    subprocess.run([sys.executable, "-B", "-c", f"import {module}, openvino"], env=environment, check=True)
    assert list(tmp_path.iterdir()) == []
