"""This project's runtime under the stopwatch: pixels to logits, and file to verdict."""

import itertools
import time
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from benchmarks.cases import Job, Limits, Mode
from benchmarks.timing import Clock, Timing, one_by_one
from edge_runtime.bundle import Bundle
from edge_runtime.classifier import compile_network
from edge_runtime.contract import ModelContract
from edge_runtime.pictures import read_picture
from edge_runtime.preprocess import face_pixels

Pixels = NDArray[np.uint8]
Logits = NDArray[np.float32]


def picture_pixels(path: str | Path, contract: ModelContract) -> Pixels:
    """Read a picture and return the model's pixels, uint8 [K, H, W, 3]."""
    return face_pixels(read_picture(path), None, contract)


class RuntimeEngine:
    """The bundle's network, compiled as `edge-detect` compiles it."""

    def __init__(self, job: Job) -> None:
        bundle = Bundle.open(job.bundle)
        self.contract = bundle.contract
        self._reading = bundle.contract.calibration(job.case.precision)
        self._mode = job.case.mode
        streams = {"NUM_STREAMS": job.case.streams} if job.case.streams else {}
        path = bundle.model(job.case.precision)
        hint = self._mode.value.upper()
        self.compiled = compile_network(ov.Core(), path, self.contract, device=job.case.device, hint=hint, **streams)
        self._request = self.compiled.create_infer_request()

    def logits(self, pixels: Pixels) -> Logits:
        """Return the logits [N, 2] of crops [N, H, W, 3], one after the other."""
        return np.concatenate([self._infer(crop[None]) for crop in pixels])

    def verdict(self, path: str) -> object:
        """Judge one picture file as `edge-detect` does."""
        return self._read(self.logits(picture_pixels(path, self.contract)))

    def time_model(self, crops: Sequence[Pixels], limits: Limits) -> Timing:
        """Time crops [1, H, W, 3] that lie in memory."""
        if self._mode is Mode.LATENCY:
            return one_by_one(self._infer, crops, limits)
        return self._queue_model(crops, limits)

    def time_end_to_end(self, paths: Sequence[str], limits: Limits) -> Timing:
        """Time files to verdicts: read, decode, cut, infer, judge."""
        if self._mode is Mode.LATENCY:
            return one_by_one(self.verdict, paths, limits)
        return self._queue_files(paths, limits)

    def facts(self) -> dict[str, Any]:
        """Say what runs: the device, streams, threads, requests and kernels of the compiled network."""
        return compiled_facts(self.compiled)

    def _infer(self, crop: Pixels) -> Logits:
        self._request.infer([crop], share_inputs=True)
        return self._request.get_output_tensor(0).data.copy()

    def _read(self, logits: Logits) -> object:
        mean = logits.mean(axis=0)
        return self._reading.verdict(self._reading.score(float(mean[1] - mean[0])))

    def _queue_model(self, crops: Sequence[Pixels], limits: Limits) -> Timing:
        latencies: list[float] = []
        queue = ov.AsyncInferQueue(self.compiled)
        queue.set_callback(lambda request, started: latencies.append(time.perf_counter() - started))
        clock = Clock(limits)
        for started, crop in enumerate(itertools.cycle(crops)):
            if not clock.goes_on(started):
                break
            queue.get_idle_request_id()
            queue.start_async([crop], time.perf_counter(), share_inputs=True)
        queue.wait_all()
        return clock.stop(latencies)

    def _queue_files(self, paths: Sequence[str], limits: Limits) -> Timing:
        latencies: list[float] = []

        def judged(request: ov.InferRequest, started: float) -> None:
            self._read(request.get_output_tensor(0).data)
            latencies.append(time.perf_counter() - started)

        queue = ov.AsyncInferQueue(self.compiled)
        queue.set_callback(judged)
        with ThreadPoolExecutor(2) as readers:
            clock, ahead = Clock(limits), deque[Future[tuple[float, Pixels]]]()
            for started, path in enumerate(itertools.cycle(paths)):
                if not clock.goes_on(started):
                    break
                ahead.append(readers.submit(self._timed_read, path))
                if len(ahead) > len(queue):
                    self._start(queue, ahead.popleft())
            while ahead:
                self._start(queue, ahead.popleft())
            queue.wait_all()
            return clock.stop(latencies)

    def _timed_read(self, path: str) -> tuple[float, Pixels]:
        return time.perf_counter(), picture_pixels(path, self.contract)

    @staticmethod
    def _start(queue: ov.AsyncInferQueue, reading: "Future[tuple[float, Pixels]]") -> None:
        started, pixels = reading.result()
        queue.start_async([pixels[:1]], started)


def compiled_facts(compiled: ov.CompiledModel) -> dict[str, Any]:
    """Say what a compiled network runs on and with which kernels, as OpenVINO itself tells."""
    wanted = {
        "execution_devices": "EXECUTION_DEVICES",
        "streams": "NUM_STREAMS",
        "threads": "INFERENCE_NUM_THREADS",
        "requests": "OPTIMAL_NUMBER_OF_INFER_REQUESTS",
        "inference_precision": "INFERENCE_PRECISION_HINT",
        "pinned": "ENABLE_CPU_PINNING",
    }
    supported = set(compiled.get_property("SUPPORTED_PROPERTIES"))
    facts = {name: _plain(compiled.get_property(key)) for name, key in wanted.items() if key in supported}
    return {**facts, "openvino": ov.__version__, "kernels": kernels(compiled)}


def kernels(compiled: ov.CompiledModel) -> dict[str, int]:
    """Count the compiled graph's kernels by `layer type, kernel`, such as `Convolution, jit_sse42_I8`."""
    found: Counter[str] = Counter()
    for op in compiled.get_runtime_model().get_ops():
        info = op.get_rt_info()
        layer, kernel = (str(info[key].value) if key in info else "" for key in ("layerType", "primitiveType"))
        precision = str(info["runtimePrecision"].value) if "runtimePrecision" in info else ""
        if kernel and layer not in ("Input", "Output", "Const"):
            name = kernel if kernel.upper().endswith(precision.upper()) else f"{kernel}_{precision}"
            found[f"{layer}, {name}"] += 1
    return dict(found.most_common())


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, ov.Type):
        return value.to_string()
    return value if isinstance(value, (bool, int, float, str)) else str(value)
