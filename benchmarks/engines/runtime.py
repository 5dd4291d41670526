"""This project's runtime, timed from pixels to logits and from file to verdict."""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov

from benchmarks.engines.common import Logits, Pixels
from benchmarks.measure.cases import Case, Job, Mode, TimingLimits
from benchmarks.measure.timing import Brake, Clock, Timing, one_by_one
from edge_runtime.errors import DeviceError
from edge_runtime.inference.classifier import Classifier
from edge_runtime.inference.engine import Choice, Engine
from edge_runtime.judging.scorer import FrameScorer, Verdicts
from edge_runtime.model.bundle import Bundle
from edge_runtime.model.contract import ModelContract, Precision
from edge_runtime.pipeline import Pipeline
from edge_runtime.pixels.pictures import read_picture
from edge_runtime.pixels.quality import QualityLimits
from edge_runtime.plain_json import plain
from edge_runtime.sources import Frame, Source

READERS = 2
"""Pictures decoded while the device infers others, as in the runtime's detector for files."""


def start_engine(bundle: Bundle, case: Case) -> tuple[Engine, ov.CompiledModel]:
    """Start the runtime's engine for a case and check its golden pictures; return it with its compiled network.

    Raises:
        DeviceError: the device is missing or gives wrong logits; the CPU is not measured instead.
    """
    built: list[Classifier] = []

    def build(path: Path, contract: ModelContract, **options: Any) -> Classifier:
        built.append(Classifier(path, contract, **options))
        return built[-1]

    streams = {"NUM_STREAMS": case.streams} if case.streams else {}
    hint = case.mode.value.upper()
    choice = Choice(device=case.device, precision=Precision(case.precision), hint=hint, properties=streams)
    engine = Engine(bundle, choice, build=build)
    if engine.choice != choice:
        raise DeviceError(f"{case.device} gave wrong logits or failed, and the runtime fell back to another device")
    return engine, built[-1].compiled


class RepeatedPictures(Source):
    """A source that yields the same picture files again and again until the clock stops it."""

    live = False
    still = True
    name = "pictures"

    def __init__(self, paths: Sequence[str], clock: Clock) -> None:
        self._paths, self._clock = paths, clock

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        """Yield the pictures as frames that the pipeline's workers decode."""
        for index, path in enumerate(itertools.cycle(self._paths)):
            if stop.is_set() or not self._clock.goes_on(index):
                return
            yield frame_without_provenance(path, index)


def frame_without_provenance(path: str, index: int = 0) -> Frame:
    """Return a picture file as a frame whose marks of origin are not read, as no other engine reads them."""
    return Frame(path, index, partial(read_picture, path), still=True)


class RuntimeEngine:
    """The runtime's own scorer and pipeline, as `edge-detect` runs them on a folder of pictures.

    Quality limits are off: dark and blurred pictures are judged too, as the baselines do.
    """

    def __init__(self, job: Job) -> None:
        bundle = Bundle.open(job.bundle)
        self.contract = bundle.contract
        self._mode = job.case.mode
        self._engine, self._compiled = start_engine(bundle, job.case)
        self._request = self._compiled.create_infer_request()
        self._scorer = FrameScorer(self._engine, limits=QualityLimits(0, 0.0, 0.0))

    def logits(self, pixels: Pixels) -> Logits:
        """Return the logits [N, 2] of crops [N, H, W, 3], inferred one after the other."""
        return np.concatenate([self._infer(crop[None]) for crop in pixels])

    def verdict(self, path: str) -> object:
        """Judge one picture file."""
        return Verdicts(self.contract).of_frame(self._scorer(frame_without_provenance(path)))

    def time_model(self, crops: Sequence[Pixels], limits: TimingLimits) -> Timing:
        """Time inference on crops [1, H, W, 3] in memory."""
        if self._mode is Mode.LATENCY:
            return one_by_one(Brake(limits.delay).sleep(self._infer), crops, limits)
        latencies: list[float] = []
        queue = ov.AsyncInferQueue(self._compiled)
        queue.set_callback(lambda request, started: latencies.append(time.perf_counter() - started))
        clock, brake = Clock(limits), Brake(limits.delay)
        for started, crop in enumerate(itertools.cycle(crops)):
            if not clock.goes_on(started):
                break
            queue.get_idle_request_id()
            queue.start_async([crop], time.perf_counter(), share_inputs=True)
            brake.burn()
        queue.wait_all()
        return clock.stop(latencies)

    def time_end_to_end(self, paths: Sequence[str], limits: TimingLimits) -> Timing:
        """Time files to verdicts: read, decode, crop, infer, judge."""
        if self._mode is Mode.LATENCY:
            return one_by_one(Brake(limits.delay).sleep(self.verdict), paths, limits)
        clock = Clock(limits)
        workers = self._engine.parallel + READERS
        scorer = Brake(limits.delay).work(self._scorer)
        pipeline = Pipeline([RepeatedPictures(paths, clock)], scorer, Verdicts(self.contract), workers=workers)
        return clock.stop([judged.result.latency_ms / 1000.0 for judged in pipeline.results()])

    def facts(self) -> dict[str, Any]:
        """Return device, streams, threads, requests and kernels of the compiled network."""
        return compiled_facts(self._compiled)

    def _infer(self, crop: Pixels) -> Logits:
        self._request.infer([crop], share_inputs=True)
        return self._request.get_output_tensor(0).data.copy()


def compiled_facts(compiled: ov.CompiledModel) -> dict[str, Any]:
    """Return what OpenVINO reports about a compiled network: device, settings and kernels."""
    wanted = {
        "execution_devices": "EXECUTION_DEVICES",
        "streams": "NUM_STREAMS",
        "threads": "INFERENCE_NUM_THREADS",
        "requests": "OPTIMAL_NUMBER_OF_INFER_REQUESTS",
        "inference_precision": "INFERENCE_PRECISION_HINT",
        "pinned": "ENABLE_CPU_PINNING",
        "from_cache": "LOADED_FROM_CACHE",
    }
    supported = set(compiled.get_property("SUPPORTED_PROPERTIES"))
    values = {name: compiled.get_property(key) for name, key in wanted.items() if key in supported}
    facts = {name: v.to_string() if isinstance(v, ov.Type) else plain(v) for name, v in values.items()}
    return {**facts, "openvino": ov.__version__, "kernels": kernels(compiled)}


def kernels(compiled: ov.CompiledModel) -> dict[str, int]:
    """Count the compiled graph's kernels by `layer type, kernel`, such as `Convolution, jit_sse42_I8`."""
    found: Counter[str] = Counter()
    for op in compiled.get_runtime_model().get_ops():
        info = op.get_rt_info()
        layer, kernel = (str(info[key].value) if key in info else "" for key in ("layerType", "primitiveType"))
        precision = str(info["runtimePrecision"].value) if "runtimePrecision" in info else ""
        if kernel and layer not in ("Input", "Output", "Const"):
            # Kernel names contain the precision (jit_sse42_I8), except for unnamed kernels.
            found[f"{layer}, {kernel}_{precision}" if kernel == "unknown" else f"{layer}, {kernel}"] += 1
    return dict(found.most_common())
