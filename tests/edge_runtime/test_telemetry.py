"""OpenVINO reports nothing to its maker and writes nothing into the user's home."""

import os
import subprocess
import sys
from pathlib import Path


def test_imports_write_nothing_into_the_home(tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path)}
    environment.pop("XDG_CACHE_HOME", None)
    code = "import edge_runtime.model.check, edge_runtime.detector, edge_runtime.web.app, openvino"
    subprocess.run([sys.executable, "-B", "-c", code], env=environment, check=True)
    assert list(tmp_path.iterdir()) == []
