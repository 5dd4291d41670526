"""Child processes: each measurement runs in one of its own, capped to an instruction set, under the same emulator."""

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.engines.baselines import cap_variables
from benchmarks.measure.cases import Job
from benchmarks.measure.sensors import foreign_load, pace, read_cpu_time
from board_setup.isa import capped_environment
from edge_runtime.errors import DeviceError
from export.children.process import emulator

WORKER = ("-m", "benchmarks.measure.worker")


@dataclass(frozen=True)
class Done:
    """What a child process gave back, and figures of the machine: its pace just before, and the load of others."""

    result: dict[str, Any]
    figures: dict[str, float]


def run_job(job: Job, cache: Path, command: tuple[str, ...] = WORKER) -> Done:
    """Measure `job` in a child process that keeps its compiled models in folder `cache`, by instruction set.

    Raises:
        DeviceError: the child said what is wrong, or it died; the message is one line.
    """
    folder = cache / job.case.isa
    folder.mkdir(exist_ok=True)
    environment = {**child_environment(job.case.isa), "CACHE_DIRECTORY": str(folder)}
    around = {} if emulator() else {"pace": pace()}
    before, own, start = read_cpu_time(), _children_cpu_s(), time.monotonic()
    result = run_child(replace(job, started=start).to_dict(), command, environment)
    load = foreign_load(before, read_cpu_time(), _children_cpu_s() - own, time.monotonic() - start, os.cpu_count() or 1)
    return Done(result, around if load is None else {**around, "foreign_load": load})


def child_environment(isa: str) -> dict[str, str]:
    """Return the environment of a child that is capped to `isa`, PyTorch's kernels too."""
    return {**capped_environment(isa), **cap_variables(isa), "OPENVINO_LOG_LEVEL": "0", "PYTHONUNBUFFERED": "1"}


def run_child(job: Mapping[str, Any], command: tuple[str, ...], environment: Mapping[str, str]) -> dict[str, Any]:
    """Hand `job` to `python COMMAND JOB RESULT` and return what it wrote.

    Raises:
        DeviceError: it said what is wrong, or it died; the message is one line.
    """
    with tempfile.TemporaryDirectory(prefix="edge-benchmark-") as folder:
        job_path, result_path = Path(folder, "job.json"), Path(folder, "result.json")
        job_path.write_text(json.dumps(job))
        full = [*emulator(), sys.executable, *command, str(job_path), str(result_path)]
        done = subprocess.run(full, env=dict(environment), capture_output=True, text=True, check=False)
        try:
            result = json.loads(result_path.read_text())
        except (OSError, ValueError):
            raise DeviceError(_death(done.returncode, done.stderr)) from None
    if "error" in result:
        raise DeviceError(str(result["error"]))
    return dict(result)


def _death(code: int, errors: str) -> str:
    if code < 0:
        return f"the process died of {signal.Signals(-code).name}"
    lines = errors.strip().splitlines() or ["it said nothing"]
    return f"the process ended with exit code {code}: {lines[-1][:200]}"


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
