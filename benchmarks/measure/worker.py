"""The child process that measures one case once: `python -m benchmarks.measure.worker JOB.json RESULT.json`.

Every round has a process of its own, so that memory, time to the first verdict and the instruction set are its own, and
so that what differs from start to start (addresses, placement) is part of the spread.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks.measure.cases import Engine, Job, Limits
from benchmarks.measure.sensors import Reading, read_sensors
from benchmarks.measure.speed import Logits, Pixels, picture_pixels
from benchmarks.measure.timing import Timing
from edge_runtime.errors import EdgeError
from edge_runtime.model.contract import ModelContract

PERCENTILES = {"p50": 50, "p95": 95, "p99": 99, "max": 100}
QUANTILES = tuple(range(101))
FAILED = 3


class Measured(Protocol):
    """An engine under the stopwatch."""

    contract: ModelContract

    def logits(self, pixels: Pixels) -> Logits:
        """Return the logits [N, 2] of crops [N, H, W, 3]."""

    def verdict(self, path: str) -> object:
        """Judge one picture file."""

    def time_model(self, crops: Sequence[Pixels], limits: Limits) -> Timing:
        """Time crops [1, H, W, 3] that lie in memory."""

    def time_end_to_end(self, paths: Sequence[str], limits: Limits) -> Timing:
        """Time files to verdicts."""

    def facts(self) -> dict[str, Any]:
        """Say what runs."""


@dataclass(frozen=True)
class Round:
    """What one child process measured.

    Attributes:
        figures: by the names of `cases.FIGURES`; what can't be read here is not in it.
        facts: what ran.
        logits: [N][2] of the job's pictures' centre crops; empty where the engine shows none.
        latencies_ms: the 101 percentiles of end-to-end latency (model-only where there is none).
    """

    figures: dict[str, float]
    facts: dict[str, Any]
    logits: list[list[float]] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)


def open_engine(job: Job) -> Measured:
    """Return the engine of a job's case, ready to judge."""
    from benchmarks.engines import baselines
    from benchmarks.measure.speed import RuntimeEngine

    engines: dict[Engine, Callable[[Job], Measured]] = {
        Engine.RUNTIME: RuntimeEngine,
        Engine.ARTICLE: baselines.ArticleEngine,
        Engine.PYTORCH: baselines.pytorch_engine,
        Engine.ONNXRUNTIME: baselines.onnxruntime_engine,
    }
    return engines[job.case.engine](job)


def measure(job: Job) -> Round:
    """Measure a job's case once, in this process."""
    if job.case.engine is Engine.CEILING:
        from benchmarks.engines.baselines import ceiling

        figures, facts = ceiling(job)
        return Round(figures, facts)
    engine = open_engine(job)
    engine.verdict(job.pictures[0])
    first_verdict_s = time.monotonic() - job.started
    if job.sustained_s:
        return _sustained(engine, job)
    crops = [picture_pixels(path, engine.contract)[:1] for path in job.pictures]
    model, _ = _timed(engine.time_model, crops, job.limits)
    end_to_end, used = _timed(engine.time_end_to_end, job.pictures, job.limits)
    figures = {
        "model_fps": model.fps,
        "end_to_end_fps": end_to_end.fps,
        **_latencies("model", model),
        **_latencies("end_to_end", end_to_end),
        "first_verdict_s": first_verdict_s,
        "rss_peak_mb": peak_memory_mb(),
        **used,
    }
    logits = engine.logits(np.concatenate(crops)).astype(float).tolist() if job.outputs else []
    quantiles = np.percentile(end_to_end.latencies_ms, QUANTILES).round(4).tolist()
    return Round(figures, engine.facts(), logits, quantiles)


def _timed(
    timing: Callable[[Any, Limits], Timing], inputs: Sequence[Any], limits: Limits
) -> tuple[Timing, dict[str, float]]:
    timing(inputs, Limits(seconds=limits.seconds, frames=limits.warmup_frames))
    before, busy = read_sensors(), time.process_time()
    seen = timing(inputs, limits)
    cores = (time.process_time() - busy) / seen.seconds
    return seen, {"cpu_use": cores, **used_between(before, read_sensors(), seen.frames)}


def used_between(before: Reading, after: Reading, frames: int) -> dict[str, float]:
    """Return temperature, clock, throttling and energy between two readings; what can't be read is left out."""
    throttled = None if None in (before.throttled, after.throttled) else after.throttled - before.throttled  # type: ignore[operator]
    energy = after.energy_since(before)
    figures = {
        "temperature_c": after.temperature_c,
        "clock_mhz": after.clock_mhz,
        "throttled": throttled,
        "energy_j": None if energy is None else energy / frames,
    }
    return {name: float(value) for name, value in figures.items() if value is not None}


def _sustained(engine: Measured, job: Job) -> Round:
    """Measure end to end without a pause, writing a line for about every second."""
    start = time.monotonic()
    with Path(job.series).open("a", encoding="utf-8") as file:
        while (passed := time.monotonic() - start) < job.sustained_s:
            before = read_sensors()
            seen = engine.time_end_to_end(job.pictures, job.limits)
            used = used_between(before, read_sensors(), seen.frames)
            row = {"second": round(passed, 2), "end_to_end_fps": seen.fps, **_latencies("end_to_end", seen), **used}
            print(json.dumps(row), file=file, flush=True)
    return Round({"rss_peak_mb": peak_memory_mb()}, engine.facts())


def _latencies(what: str, timing: Timing) -> dict[str, float]:
    return {f"{what}_{name}_ms": float(np.percentile(timing.latencies_ms, at)) for name, at in PERCENTILES.items()}


def peak_memory_mb(status: Path = Path("/proc/self/status")) -> float:
    """Return this process's peak resident memory in MB (10⁶ bytes).

    From VmHWM: `getrusage` would hand on the peak of the process that started this one.
    """
    for line in status.read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    return float("nan")


def main() -> int:
    """Read a job, measure it, write the round; a user's mistake is written as `error`, in one line."""
    job_path, result_path = (Path(argument) for argument in sys.argv[1:3])
    try:
        result = vars(measure(Job.from_dict(json.loads(job_path.read_text()))))
    except EdgeError as error:
        result = {"error": str(error)}
    result_path.write_text(json.dumps(result))
    # Without Python's own farewell: some libraries' threads don't survive it, and all is written.
    sys.stdout.flush()
    os._exit(FAILED if "error" in result else 0)


if __name__ == "__main__":
    main()
