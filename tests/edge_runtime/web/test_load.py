"""Many clients at once: everyone gets an answer, and memory stays flat."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

LOAD = Path(__file__).with_name("load.py")


@pytest.mark.slow
def test_service_under_load(whole_detector):
    command = [sys.executable, str(LOAD), "--model", str(whole_detector.bundle.path), "--clients", "64"]
    done = subprocess.run([*command, "--seconds", "4"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    measured = json.loads(done.stdout)
    assert measured["failures"] == {}
    assert measured["statuses"]["200"] > 64
    assert measured["rss_mb"][-1] - measured["rss_mb"][1] < 30
