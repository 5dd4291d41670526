import json
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.measure.cases import FIGURES, Case, Engine, Job, Limits, Mode
from benchmarks.measure.sensors import Reading
from benchmarks.measure.timing import Timing
from benchmarks.measure.worker import _timed, measure, peak_memory_mb, used_between
from edge_runtime.errors import BundleError, DeviceError
from edge_runtime.inference.core import openvino_core

QUICK = Limits(seconds=0.2, frames=6, warmup_frames=1)


@pytest.fixture
def job(bundle, faces, tmp_path, monkeypatch):
    monkeypatch.setenv("CACHE_DIRECTORY", str(tmp_path))

    def make(mode=Mode.LATENCY, engine=Engine.RUNTIME, precision="fp32", **changes):
        pictures = tuple(str(path) for path in sorted(faces.rglob("*.png"))[:4])
        case = Case("tiny", engine, precision, "CPU", mode, "native", changes.pop("streams", 0))
        return Job(case, str(bundle.path), None, pictures, QUICK, time.monotonic(), **changes)

    return make


@pytest.mark.parametrize("mode", list(Mode))
def test_a_round_gives_every_figure_that_a_machine_can_show(job, mode):
    found = measure(job(mode))
    always = set(FIGURES) - {"temperature_c", "clock_mhz", "throttled", "energy_j", "foreign_load", "pace"}
    assert always <= set(found.figures)
    assert set(found.figures) <= set(FIGURES)
    assert all(value > 0 for name, value in found.figures.items() if name in always)
    assert (
        found.figures["end_to_end_p50_ms"] <= found.figures["end_to_end_p99_ms"] <= found.figures["end_to_end_max_ms"]
    )
    assert len(found.latencies_ms) == 101


@pytest.mark.parametrize("mode", list(Mode))
def test_a_delay_slows_every_frame_of_the_network_and_of_files(job, mode):
    plain, slowed = (measure(replace(job(mode), limits=Limits(0.6, 400, 1, delay))).figures for delay in (0.0, 4.0))
    for figure in ("model_fps", "end_to_end_fps"):
        assert slowed[figure] < 0.6 * plain[figure]


def test_the_cold_first_frames_are_run_and_not_counted():
    given = []

    def timing(inputs, limits):
        given.append(limits.frames)
        return Timing(float(len(given)), np.full(limits.frames, float(len(given))))

    seen, _ = _timed(timing, ["a"], Limits(seconds=60, frames=6, warmup_frames=2))
    assert given == [2, 6]
    assert (seen.frames, seen.fps) == (6, 3.0)


def test_a_round_says_what_ran_down_to_the_kernels(job):
    facts = measure(job(Mode.THROUGHPUT, streams=1)).facts
    assert facts["inference_precision"] == "f32"
    assert facts["streams"] == 1
    assert facts["threads"] >= 1
    assert any("Convolution" in name or "Subgraph" in name for name in facts["kernels"])


def test_both_modes_and_precisions_give_the_same_outputs(job):
    outputs = [np.asarray(measure(job(mode)).logits) for mode in Mode]
    half = np.asarray(measure(job(precision="fp16")).logits)
    assert outputs[0].shape == (4, 2)
    np.testing.assert_array_equal(outputs[0], outputs[1])
    np.testing.assert_allclose(outputs[0], half, atol=0.01)


def test_onnx_runtime_sees_the_same_pixels_as_the_runtime(job, bundle, monkeypatch):
    from benchmarks.engines import baselines

    ours = measure(job())
    network = baselines.PlainEngine(job(), lambda planes: _openvino(bundle, planes), {"network": "plain"})
    crops = [baselines.picture_pixels(path, bundle.contract) for path in job().pictures]
    np.testing.assert_allclose(network.logits(np.concatenate(crops)), ours.logits, atol=1e-4)


def _openvino(bundle, planes):

    path = bundle.path / "fp32/model.xml"
    return openvino_core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([planes])[0]


def test_a_changed_bundle_is_refused(job, tmp_path):
    with pytest.raises(BundleError, match="no bundle"):
        measure(Job(job().case, str(tmp_path), None, job().pictures, QUICK))


def test_a_missing_device_is_told_in_one_line(job):
    wrong = job()
    case = Case("tiny", Engine.RUNTIME, "fp32", "GPU", Mode.LATENCY, "native")
    with pytest.raises(DeviceError, match="GPU"):
        measure(Job(case, wrong.bundle, None, wrong.pictures, QUICK))


def test_a_sustained_run_writes_a_line_as_it_goes(job, tmp_path):
    series = tmp_path / "series.jsonl"
    measure(job(sustained_s=0.5, series=str(series)))
    rows = [json.loads(line) for line in series.read_text().splitlines()]
    assert len(rows) >= 2
    assert [row["second"] for row in rows] == sorted(row["second"] for row in rows)
    assert all(row["end_to_end_fps"] > 0 for row in rows)


def test_a_job_is_the_same_after_its_way_through_json(job):
    given = job(Mode.THROUGHPUT)
    assert Job.from_dict(json.loads(json.dumps(given.to_dict()))) == given


def test_peak_memory_is_the_processs_own_not_its_parents():
    big = np.ones(40_000_000)
    assert peak_memory_mb() > 320
    code = "from benchmarks.measure.worker import peak_memory_mb; print(peak_memory_mb())"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(child.stdout) < 300
    assert len(big) == 40_000_000


def test_what_a_sensor_does_not_show_is_left_out_of_the_figures():
    nothing = Reading(None, None, None, None)
    assert used_between(nothing, nothing, 10) == {}
    before, after = Reading(40.0, 2000.0, 3, ((1_000_000, 10**9),)), Reading(60.0, 1500.0, 5, ((6_000_000, 10**9),))
    assert used_between(before, after, 10) == {
        "temperature_c": 60.0,
        "clock_mhz": 1500.0,
        "throttled": 2.0,
        "energy_j": 0.5,
    }
