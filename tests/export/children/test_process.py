"""Worker processes: capped, quiet, and gone with their parent."""

import operator
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from board_setup.isa import current_cap
from edge_runtime.errors import BundleError
from edge_runtime.model.bundle import Bundle
from export.children.process import Workers, start_worker, start_workers
from export.children.worker import WorkerError
from export.faces import choose_faces
from export.int8.measure import measure_networks

PARENT = """
import os, time
from export.children.process import start_workers
with start_workers() as workers:
    print(workers.run(os.getpid), flush=True)
    workers.run(time.sleep, 600)
"""


def running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture(scope="module")
def workers() -> Workers:
    with start_workers() as workers:
        yield workers


def test_one_worker_per_instruction_set(workers: Workers) -> None:
    native = workers.run(os.getpid)
    assert native != os.getpid()
    assert workers.run(os.getpid) == native != workers.run(os.getpid, isa="sse42")
    assert workers.run(current_cap, isa="sse42") == "sse42"


def test_errors_arrive_and_the_worker_goes_on(workers: Workers, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=re.escape(str(tmp_path / "none"))):
        workers.run(Bundle.open, tmp_path / "none")
    with pytest.raises(WorkerError, match=r"^truediv failed: ZeroDivisionError: division by zero$"):
        workers.run(operator.truediv, 1, 0)
    assert workers.run(operator.add, 1, 2) == 3


def test_what_jobs_print_stays_off_the_terminal(workers: Workers, capfd: pytest.CaptureFixture[str]) -> None:
    assert workers.run(os.system, "echo noise") == 0
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os; os.abort()", "was killed by SIGABRT"),
        ("import os; print('no AVX', flush=True); os._exit(3)", "ended with exit code 3: no AVX"),
    ],
)
def test_the_death_of_a_process_is_reported(code: str, words: str) -> None:
    with start_worker(os.environ) as worker:
        process = worker.run(os.getpid)
        with pytest.raises(WorkerError, match=words):
            worker.run(exec, code)
    assert not running(process)


def test_a_worker_ends_when_its_parent_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        worker = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 30
    while running(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not running(worker)


def test_networks_are_measured_under_each_instruction_set(
    workers: Workers, tiny_bundle: Bundle, tiny_data: Path
) -> None:
    faces = choose_faces(tiny_data, calibration=2, measured=8).measured
    networks = {precision.value: tiny_bundle.model(precision) for precision in tiny_bundle.precisions}
    steps: list[int] = []
    given = (measure_networks, networks, tiny_bundle.contract, faces)
    native, capped = (workers.run(*given, isa=isa, advance=steps.append) for isa in ("native", "sse42"))
    assert sum(steps) == 2 * 3 * 8
    np.testing.assert_allclose(capped["fp32"], native["fp32"], atol=1e-4)
    assert capped["int8"].shape == (8, 2)
