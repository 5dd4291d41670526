"""Temporary folders: what a killed run left is removed, what is in use stays."""

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from export.children.scratch import PREFIX, ScratchFolder

HOLDER = """
import time
from export.children.scratch import ScratchFolder
with ScratchFolder() as folder:
    (folder / "model.blob").touch()
    print(folder, flush=True)
    time.sleep(600)
"""


def test_a_killed_runs_folder_is_removed_and_a_running_ones_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    mine = tmp_path / f"{PREFIX}notes"
    mine.touch()
    with subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True) as holder:
        theirs = Path(holder.stdout.readline().strip())
        with ScratchFolder() as ours:
            assert set(tmp_path.iterdir()) == {mine, theirs, ours}
        holder.send_signal(signal.SIGKILL)
    assert theirs.exists()
    with ScratchFolder() as ours:
        assert set(tmp_path.iterdir()) == {mine, ours}
    assert list(tmp_path.iterdir()) == [mine], "a file is kept"
