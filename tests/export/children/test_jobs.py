"""Child processes: capped, quiet, and gone with whoever started them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.errors import UsageError
from edge_runtime.model.bundle import Bundle
from export.children.jobs import Workers
from export.faces import choose_faces
from export.int8.measure import measure_networks

STARTER = """
import sys, time
from export.children.jobs import Workers
workers = Workers()
try:
    workers.run("measure", {}, isa="sse42")
except Exception:
    pass
from export.children.jobs import _Child
child = _Child("sse42")
print(child.process.pid, flush=True)
time.sleep(600)
"""


def test_one_worker_measures_under_each_instruction_set_and_tells_how_far_it_is(
    tiny_bundle: Bundle, tiny_data: Path
) -> None:
    faces = choose_faces(tiny_data, calibration=2, measured=8).measured
    networks = {precision.value: tiny_bundle.model(precision) for precision in tiny_bundle.precisions}
    told: list[int] = []
    with Workers() as workers:
        found = {
            isa: measure_networks(workers, networks, tiny_bundle.contract, faces, isa=isa, advance=told.append)
            for isa in ("native", "sse42")
        }
    assert sum(told) == 2 * 3 * 8
    np.testing.assert_allclose(found["sse42"]["fp32"], found["native"]["fp32"], atol=1e-4)
    assert found["sse42"]["int8"].shape == (8, 2)


def test_a_job_that_fails_is_told_in_one_line() -> None:
    with Workers() as workers, pytest.raises(UsageError, match=r"measure \(native\) failed: KeyError"):
        workers.run("measure", {})


def test_a_worker_ends_with_whoever_started_it_even_by_a_kill() -> None:
    starter = subprocess.Popen([sys.executable, "-c", STARTER], stdout=subprocess.PIPE, text=True)
    assert starter.stdout
    worker = int(starter.stdout.readline())
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    starter.stdout.close()
    for _ in range(600):
        if not running(worker):
            return
        time.sleep(0.1)
    pytest.fail("the worker is still there")


def running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    return state != "Z"
