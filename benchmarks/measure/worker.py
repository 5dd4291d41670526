"""Measures one case once; it runs in a worker process.

Each round has its own process, so memory, time to the first verdict and instruction set belong to the case alone,
and the difference between starts (addresses, placement) is part of the spread.
"""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.engines.common import TimedEngine, picture_pixels
from benchmarks.measure.cases import EngineKind, Job, Round, TimingLimits
from benchmarks.measure.memory import peak_memory_mb
from benchmarks.measure.sensors import SensorReading, read_sensors
from benchmarks.measure.timing import Timing

PERCENTILES = {"p50": 50, "p95": 95, "p99": 99, "max": 100}


def open_engine(job: Job) -> TimedEngine:
    """Return the engine of a job's case, ready to judge. Each engine's package is imported only when needed."""
    if job.case.engine is EngineKind.ARTICLE:
        from benchmarks.engines.article import ArticleEngine

        return ArticleEngine(job)
    if job.case.engine is EngineKind.PYTORCH:
        from benchmarks.engines.pytorch import pytorch_engine

        return pytorch_engine(job)
    if job.case.engine is EngineKind.ONNXRUNTIME:
        from benchmarks.engines.onnx_runtime import onnxruntime_engine

        return onnxruntime_engine(job)
    from benchmarks.engines.runtime import RuntimeEngine

    return RuntimeEngine(job)


def measure(job: Job) -> Round:
    """Measure a job's case once, in this process."""
    if job.case.engine is EngineKind.CEILING:
        from benchmarks.engines.benchmark_app import run_benchmark_app

        figures, facts = run_benchmark_app(job)
        return Round(figures, facts)
    engine = open_engine(job)
    engine.verdict(job.pictures[0])
    first_verdict_s = time.monotonic() - job.started
    if job.sustained_s:
        _write_series(engine, job)
        return Round({"rss_peak_mb": peak_memory_mb()}, engine.facts())
    crops = [picture_pixels(path, engine.contract)[:1] for path in job.pictures]
    model, _ = time_warm(engine.time_model, crops, job.limits)
    end_to_end, used = time_warm(engine.time_end_to_end, job.pictures, job.limits)
    return Round(
        figures={
            "model_fps": model.fps,
            "end_to_end_fps": end_to_end.fps,
            **_latencies("model", model),
            **_latencies("end_to_end", end_to_end),
            "first_verdict_s": first_verdict_s,
            "rss_peak_mb": peak_memory_mb(),
            **used,
        },
        facts=engine.facts(),
        logits=engine.logits(np.concatenate(crops)).astype(float).tolist() if job.outputs else [],
        latencies_ms=np.percentile(end_to_end.latencies_ms, range(101)).round(4).tolist(),
    )


def time_warm(
    timing: Callable[[Any, TimingLimits], Timing], inputs: Sequence[Any], limits: TimingLimits
) -> tuple[Timing, dict[str, float]]:
    """Time `inputs` after an untimed warm-up; return the timing and what it used of the machine."""
    timing(inputs, TimingLimits(seconds=limits.seconds, frames=limits.warmup_frames))
    before, busy = read_sensors(), time.process_time()
    found = timing(inputs, limits)
    cores = (time.process_time() - busy) / found.seconds
    return found, {"cpu_use": cores, **used_between(before, read_sensors(), found.frames)}


def used_between(before: SensorReading, after: SensorReading, frames: int) -> dict[str, float]:
    """Return temperature, clock, throttling and energy per frame between two readings, if they can be read."""
    energy_j, throttled = after.energy_since(before), None
    if before.throttled is not None and after.throttled is not None:
        throttled = after.throttled - before.throttled
    figures = {
        "temperature_c": after.temperature_c,
        "clock_mhz": after.clock_mhz,
        "throttled": throttled,
        "energy_j": None if energy_j is None else energy_j / frames,
    }
    return {name: float(value) for name, value in figures.items() if value is not None}


def _write_series(engine: TimedEngine, job: Job) -> None:
    """Measure end to end for `sustained_s` seconds and append a line of JSON for each timing."""
    start = time.monotonic()
    with Path(job.series).open("a", encoding="utf-8") as file:
        while (passed := time.monotonic() - start) < job.sustained_s:
            before = read_sensors()
            found = engine.time_end_to_end(job.pictures, job.limits)
            used = used_between(before, read_sensors(), found.frames)
            row = {"second": round(passed, 2), "end_to_end_fps": found.fps, **_latencies("end_to_end", found), **used}
            print(json.dumps(row), file=file, flush=True)


def _latencies(what: str, timing: Timing) -> dict[str, float]:
    return {f"{what}_{name}_ms": float(np.percentile(timing.latencies_ms, at)) for name, at in PERCENTILES.items()}
