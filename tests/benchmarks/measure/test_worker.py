import json
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.engines.common import BaselineEngine, picture_pixels
from benchmarks.measure.cases import FIGURES, Case, EngineKind, Job, Mode, TimingLimits
from benchmarks.measure.children import run_job
from benchmarks.measure.memory import peak_memory_mb
from benchmarks.measure.sensors import SensorReading
from benchmarks.measure.timing import Timing
from benchmarks.measure.worker import measure, time_warm, used_between
from edge_runtime.errors import BundleError, DeviceError
from edge_runtime.inference.core import openvino_core
from edge_runtime.pixels.preprocess import normalized


@pytest.fixture
def job(bundle, faces, tmp_path, monkeypatch):
    monkeypatch.setenv("CACHE_DIRECTORY", str(tmp_path))

    def make(mode=Mode.LATENCY, precision="fp32", device="CPU", streams=0, **changes) -> Job:
        job = Job(
            case=Case("tiny", precision, mode, device=device, streams=streams),
            bundle=str(bundle.path),
            checkpoint=None,
            pictures=tuple(str(path) for path in sorted(faces.rglob("*.png"))[:4]),
            limits=TimingLimits(seconds=0.2, frames=6, warmup_frames=1),
            started=time.monotonic(),
        )
        return replace(job, **changes)

    return make


@pytest.mark.parametrize("mode", list(Mode))
def test_round_has_every_figure(job, mode):
    found = measure(job(mode, streams=1))
    always = set(FIGURES) - {"temperature_c", "clock_mhz", "throttled", "energy_j", "foreign_load", "pace"}
    figures = found.figures
    assert always <= set(figures) <= set(FIGURES)
    assert all(figures[name] > 0 for name in always)
    assert figures["end_to_end_p50_ms"] <= figures["end_to_end_p99_ms"] <= figures["end_to_end_max_ms"]
    assert len(found.latencies_ms) == 101
    assert found.facts["inference_precision"] == "f32"
    assert found.facts["threads"] >= 1
    assert any("Convolution" in name or "Subgraph" in name for name in found.facts["kernels"])


@pytest.mark.parametrize("mode", list(Mode))
def test_delay_slows_network_and_files(job, mode):
    limits = TimingLimits(seconds=0.3, frames=400, warmup_frames=1)
    plain, slowed = (measure(job(mode, limits=replace(limits, delay=delay))).figures for delay in (0.0, 4.0))
    for figure in ("model_fps", "end_to_end_fps"):
        assert slowed[figure] < 0.6 * plain[figure]


def test_warm_up_is_not_counted():
    given = []

    def timing(inputs, limits):
        given.append(limits.frames)
        return Timing(float(len(given)), np.full(limits.frames, float(len(given))))

    found, _ = time_warm(timing, ["a"], TimingLimits(seconds=60, frames=6, warmup_frames=2))
    assert given == [2, 6]
    assert (found.frames, found.fps) == (6, 3.0)


def test_modes_and_precisions_agree(job):
    outputs = [np.asarray(measure(job(mode)).logits) for mode in Mode]
    half = np.asarray(measure(job(precision="fp16")).logits)
    assert outputs[0].shape == (4, 2)
    np.testing.assert_array_equal(outputs[0], outputs[1])
    np.testing.assert_allclose(outputs[0], half, atol=0.01)


@pytest.mark.parametrize("options", [{}, {"batch": 3}, {"threads": 2}])
def test_baseline_gets_the_runtimes_pixels(job, bundle, options):
    network = openvino_core().compile_model(bundle.path / "fp32/model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    lock = threading.Lock()

    def forward(pixels):
        with lock:
            return np.concatenate([network([normalized(crop[None], bundle.contract)])[0] for crop in pixels])

    engine, given = BaselineEngine(job(), forward, {"network": "plain"}, **options), job()
    crops = [picture_pixels(path, bundle.contract) for path in given.pictures]
    np.testing.assert_allclose(engine.logits(np.concatenate(crops)), measure(job()).logits, atol=1e-4)
    assert engine.time_model(crops, given.limits).frames >= 6
    assert engine.time_end_to_end(given.pictures, given.limits).frames >= 6


@pytest.mark.slow
def test_ceiling_takes_the_runtimes_streams(job, tmp_path):
    """Without AVX OpenVINO would take one stream, and the runtime would be faster than its ceiling."""
    ours = job(Mode.THROUGHPUT)
    ours = replace(ours, case=replace(ours.case, isa="sse42"), limits=TimingLimits(seconds=1.0, warmup_frames=1))
    ceiling = replace(ours, case=replace(ours.case, engine=EngineKind.CEILING))
    runtime, app = run_job(ours, tmp_path), run_job(ceiling, tmp_path)
    assert app.facts["streams"] == runtime.facts["streams"]
    assert app.figures["model_fps"] > 0


def test_missing_bundle_or_device_is_refused(job, tmp_path):
    with pytest.raises(BundleError, match=str(tmp_path)):
        measure(job(bundle=str(tmp_path)))
    with pytest.raises(DeviceError, match="GPU"):
        measure(job(device="GPU"))


def test_sustained_run_writes_a_series(job, tmp_path):
    series = tmp_path / "series.jsonl"
    measure(job(sustained_s=0.5, series=str(series)))
    rows = [json.loads(line) for line in series.read_text().splitlines()]
    assert len(rows) >= 2
    assert [row["second"] for row in rows] == sorted(row["second"] for row in rows)
    assert all(row["end_to_end_fps"] > 0 for row in rows)


def test_peak_memory_is_not_the_parents():
    big = np.ones(40_000_000)
    assert peak_memory_mb() > 320
    code = "from benchmarks.measure.memory import peak_memory_mb; print(peak_memory_mb())"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(child.stdout) < 100
    assert len(big) == 40_000_000


def test_missing_sensors_give_no_figures():
    nothing = SensorReading(None, None, None, None)
    assert used_between(nothing, nothing, 10) == {}
    before = SensorReading(40.0, 2000.0, 3, ((1_000_000, 10**9),))
    after = SensorReading(60.0, 1500.0, 5, ((6_000_000, 10**9),))
    assert used_between(before, after, 10) == {
        "temperature_c": 60.0,
        "clock_mhz": 1500.0,
        "throttled": 2.0,
        "energy_j": 0.5,
    }
