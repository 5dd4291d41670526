"""Many clients at once: every one is answered, and the memory stays as it is."""

import json
import subprocess
import sys
from pathlib import Path

LOAD = Path(__file__).with_name("load.py")


def test_under_load_every_client_is_answered_and_the_memory_stays_flat(whole_detector):
    command = [sys.executable, str(LOAD), "--model", str(whole_detector.bundle.path), "--clients", "64"]
    done = subprocess.run([*command, "--seconds", "4"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["failures"] == {}
    assert set(told["statuses"]) <= {"200", "429", "503"}
    assert told["statuses"]["200"] > 64
    assert told["rss_mb"][-1] - told["rss_mb"][1] < 30
