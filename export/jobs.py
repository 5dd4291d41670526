"""Work in child processes: an instruction set holds for a whole process, and NNCF's chatter stays off the terminal."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from board_setup.isa import capped_environment
from edge_runtime.errors import GateError
from train.workers import Advance

ROOT = Path(__file__).resolve().parents[1]


def run_job(kind: str, values: Mapping[str, Any], *, isa: str = "native", advance: Advance | None = None) -> None:
    """Run a job of `export.worker` in a child process capped to `isa` and wait for it.

    Args:
        kind: which job, a key of `export.worker.JOBS`.
        values: what it works on, as JSON can hold it; paths absolute.
        isa: a key of `board_setup.isa.CAPS`.
        advance: told how many more steps are done.

    Raises:
        GateError: the job failed; the last line that it said is told.
    """
    with tempfile.TemporaryDirectory(prefix="deepfake-edge-") as folder:
        order, said = Path(folder) / "job.json", Path(folder) / "said.txt"
        order.write_text(json.dumps({"kind": kind, **values}), encoding="utf-8")
        with said.open("wb") as errors:
            child = subprocess.Popen(
                [sys.executable, "-m", "export.worker", str(order)],
                cwd=folder,
                env=_environment(isa),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
            try:
                _follow(child, advance)
            finally:
                child.kill() if child.poll() is None else None
                child.wait()
        if child.returncode:
            raise GateError(f"{kind} ({isa}) failed: {_last_line(said, child.returncode)}")


def _environment(isa: str) -> dict[str, str]:
    environment = capped_environment(isa)
    path = environment.get("PYTHONPATH")
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *([path] if path else [])])
    environment["TQDM_DISABLE"] = "1"
    return environment


def _follow(child: "subprocess.Popen[str]", advance: Advance | None) -> None:
    """Read the child's counts until it ends. Its standard input stays open meanwhile: it ends when we do."""
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith("+") and advance:
            advance(int(line[1:]))
    child.wait()


def _last_line(said: Path, code: int) -> str:
    lines = [line.strip() for line in said.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else f"it ended with {code}"
