"""Runs each measurement in its own worker process, capped to an instruction set."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from benchmarks.measure.cases import Job, Round
from benchmarks.measure.sensors import LoadMeter, pace
from benchmarks.measure.worker import measure
from board_setup.isa import capped_environment, emulator
from export.children.process import start_worker

Result = TypeVar("Result")

ATEN_CAPABILITY = {"sse42": "default", "avx2": "avx2"}
"""The cap of PyTorch's own kernels; oneDNN and OpenVINO have theirs in `board_setup.isa.CAPS`."""


def run_job(job: Job, cache: Path) -> Round:
    """Measure `job` in a new process that caches compiled models in `cache`, by instruction set.

    Raises:
        EdgeError: it could not be measured, or the process died.
    """
    folder = cache / job.case.isa
    folder.mkdir(exist_ok=True)
    before = pace()
    load, started = LoadMeter(), time.monotonic()
    found = in_process(measure, replace(job, started=started), isa=job.case.isa, CACHE_DIRECTORY=str(folder))
    around = {"foreign_load": load.read(), "pace": min(before, pace())}
    if emulator():
        # The pace of an emulated matrix product says nothing about the machine.
        del around["pace"]
    return replace(found, figures={**found.figures, **around})


def in_process(job: Callable[..., Result], *arguments: object, isa: str = "native", **variables: str) -> Result:
    """Return `job(*arguments)`, computed in a new process capped to `isa`, with environment `variables` added.

    Raises:
        EdgeError: what the job raised, or that the process died.
    """
    aten = {"ATEN_CPU_CAPABILITY": ATEN_CAPABILITY[isa]} if isa in ATEN_CAPABILITY else {}
    environment = {**capped_environment(isa), **aten, "OPENVINO_LOG_LEVEL": "0", **variables}
    with start_worker(environment) as worker:
        return worker.run(job, *arguments)
