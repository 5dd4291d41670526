"""OpenVINO's benchmark_app on the same network: the ceiling for inference alone, on random input."""

import importlib.metadata
import json
import re
import subprocess
import sys
import tempfile
from typing import Any

from benchmarks.measure.cases import UNLIMITED_FRAMES, Job
from edge_runtime.errors import DeviceError
from edge_runtime.inference.classifier import compile_network
from edge_runtime.inference.core import openvino_core
from edge_runtime.inference.engine import cache_properties
from edge_runtime.model.bundle import Bundle

# What the `benchmark_app` script of OpenVINO's wheel runs.
MAIN = "from openvino.tools.benchmark.main import main; main()"


def run_benchmark_app(job: Job) -> tuple[dict[str, float], dict[str, Any]]:
    """Run benchmark_app on a job's network with the runtime's number of streams; return its figures and its options.

    Raises:
        DeviceError: it failed.
    """
    bundle, case = Bundle.open(job.bundle), job.case
    compiled = compile_network(
        openvino_core(),
        bundle.model(case.precision),
        bundle.contract,
        device=case.device,
        hint=case.mode.value.upper(),
        **cache_properties(),
    )
    # Its own default is no ceiling: without AVX the runtime uses more streams and is up to twice as fast.
    streams = compiled.get_property("NUM_STREAMS")
    del compiled
    command = benchmark_app_command(job)
    with tempfile.NamedTemporaryFile("w", suffix=".json") as config:
        json.dump({case.device: {"NUM_STREAMS": str(streams)}}, config)
        config.flush()
        done = subprocess.run([*command, "-load_config", config.name], capture_output=True, text=True, check=False)
    figures = parse_output(done.stdout)
    if done.returncode or "model_fps" not in figures:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        raise DeviceError(f"benchmark_app failed with exit code {done.returncode}: {lines[-1]}")
    facts = {"benchmark_app": importlib.metadata.version("openvino"), "options": " ".join(command[5:])}
    return figures, {**facts, "streams": streams}


def benchmark_app_command(job: Job) -> list[str]:
    """Return benchmark_app's command line with the job's network, performance hint and float32."""
    bundle = Bundle.open(job.bundle)
    size, device = bundle.contract.input_size, job.case.device
    command = [sys.executable, "-c", MAIN, "-m", str(bundle.model(job.case.precision))]
    command += ["-d", device, "-hint", job.case.mode.value, "-shape", f"[1,3,{size},{size}]", "-ip", "u8"]
    command += ["-infer_precision", "f32"] if device == "CPU" else []
    if job.limits.frames < UNLIMITED_FRAMES:
        return [*command, "-niter", str(job.limits.frames)]
    return [*command, "-t", str(max(1, round(job.limits.seconds)))]


def parse_output(text: str) -> dict[str, float]:
    """Return the figures in benchmark_app's output: FPS, and latencies in milliseconds."""
    patterns = {
        "model_fps": r"Throughput:\s+([\d.]+) FPS",
        "model_p50_ms": r"Median:\s+([\d.]+) ms",
        "model_max_ms": r"Max:\s+([\d.]+) ms",
    }
    found = {name: re.search(pattern, text) for name, pattern in patterns.items()}
    return {name: float(match.group(1)) for name, match in found.items() if match}
