"""A bundle's network compiled for a device: from the model's pixels to logits."""

import contextlib
import os
import queue
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from board_setup.isa import lacks_avx
from edge_runtime.errors import BundleError, DeviceError, MissingDeviceError
from edge_runtime.inference.core import openvino_core
from edge_runtime.model.contract import ModelContract
from edge_runtime.model.reference import FEATURES


def build_network(core: ov.Core, path: Path, contract: ModelContract, batch: int = 1) -> ov.Model:
    """Read an IR and build its preprocessing into it: uint8 [batch, H, W, 3] in, logits [batch, 2] out."""
    model = core.read_model(path)
    size = contract.input_size
    prepost = ov.preprocess.PrePostProcessor(model)
    given = prepost.input()
    given.tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC")).set_shape([batch, size, size, 3])
    steps = given.preprocess().convert_element_type(ov.Type.f32)
    steps.mean([255.0 * value for value in contract.mean]).scale([255.0 * value for value in contract.scale])
    given.model().set_layout(ov.Layout("NCHW"))
    return prepost.build()


def compile_network(
    core: ov.Core, path: Path, contract: ModelContract, *, device: str = "CPU", hint: str = "LATENCY", **properties: Any
) -> ov.CompiledModel:
    """Compile a bundle's network for `device` with static shapes.

    The CPU computes in float32 or INT8 only: with bfloat16, CPUs that have it would answer differently.

    Raises:
        MissingDeviceError: there is no such device.
        DeviceError: the device can't compile it.
    """
    # Listing the devices loads every plugin, 25 MB; a CPU is always there.
    if device != "CPU" and device.split(".")[0] not in {name.split(".")[0] for name in core.available_devices}:
        raise MissingDeviceError(
            f"no device {device} (devices here: {', '.join(core.available_devices)}); choose one of them, or check the "
            "driver and that you are in the group `render`"
        )
    settings: dict[str, Any] = {"PERFORMANCE_HINT": hint, **properties}
    if device == "CPU":
        settings["INFERENCE_PRECISION_HINT"] = "f32"
        if hint == "THROUGHPUT" and lacks_avx():
            # OpenVINO's own choice for INT8 without AVX, one stream over all cores, is half as fast.
            settings.setdefault("NUM_STREAMS", len(os.sched_getaffinity(0)))
    try:
        return core.compile_model(build_network(core, path, contract), device, settings)
    except RuntimeError as error:
        raise DeviceError(f"{device}: can't run {path} ({_first_line(error)})") from error


def row_ports(compiled: ov.CompiledModel) -> list[ov.ConstOutput]:
    """Return the outputs that form a row of `Classifier.rows`: the logits, and the features if the network has them."""
    logits = next((port for port in compiled.outputs if "logits" in port.get_names()), compiled.output(0))
    return [logits, *(port for port in compiled.outputs if FEATURES in port.get_names())]


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


class Classifier:
    """A compiled network whose inference requests are shared by any number of threads.

    Each thread waits for its own answers, so a device's failure reaches the caller.

    Raises:
        BundleError: the network's answer is not two logits.
        DeviceError: the device is missing, or can't compile the network.
    """

    def __init__(
        self, path: Path, contract: ModelContract, *, device: str = "CPU", hint: str = "THROUGHPUT", **properties: Any
    ) -> None:
        self.contract = contract
        self.compiled = compile_network(openvino_core(), path, contract, device=device, hint=hint, **properties)
        self._outputs = row_ports(self.compiled)
        if (shape := self._outputs[0].get_partial_shape()) != ov.PartialShape([1, 2]):
            raise BundleError(f"{path}: answers with {shape.to_string()}, not two logits; export the model again")
        self._width = sum(port.shape[1] for port in self._outputs)
        self.requests = int(self.compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self._idle: queue.SimpleQueue[ov.InferRequest] = queue.SimpleQueue()
        # Twice as many, so that the device starts the next while a thread still wakes up for the last.
        for _ in range(2 * self.requests):
            self._idle.put(self.compiled.create_infer_request())
        # OpenVINO's binding initializes tables at its first input, and two threads that do so at once deadlock, one
        # holding the interpreter's lock, the other the table's. So the first input comes from here.
        self.logits(np.zeros((1, contract.input_size, contract.input_size, 3), np.uint8))

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the logits [N, 2] of `pixels`; see `rows`."""
        return self.rows(pixels)[:, :2]

    def rows(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return logits and features [N, 2 + C] of `pixels`, uint8 [N, H, W, 3]; safe to call from several threads.

        C is 0 if the network has no output for its features.

        Raises:
            DeviceError: the device failed.
        """
        results = np.empty((len(pixels), self._width), np.float32)
        started: deque[tuple[ov.InferRequest, int]] = deque()
        try:
            for index, crop in enumerate(pixels):
                request = self._free_request(started, results)
                started.append((request, index))
                request.start_async([crop[None]], share_inputs=True)
            while started:
                self._finish(started, results)
        except RuntimeError as error:
            raise DeviceError(f"the device failed while computing ({_first_line(error)})") from error
        finally:
            for request, _ in started:
                self._idle.put(request)
        return results

    def _free_request(
        self, started: deque[tuple[ov.InferRequest, int]], results: NDArray[np.float32]
    ) -> ov.InferRequest:
        """Return an idle request. A thread that holds some finishes its own first, so threads can't deadlock."""
        while started:
            with contextlib.suppress(queue.Empty):
                return self._idle.get_nowait()
            self._finish(started, results)
        return self._idle.get()

    def _finish(self, started: deque[tuple[ov.InferRequest, int]], results: NDArray[np.float32]) -> None:
        request, index = started[0]
        request.wait()
        # Copies: the request's own memory is used again.
        np.concatenate([request.get_tensor(port).data[0] for port in self._outputs], out=results[index])
        started.popleft()
        self._idle.put(request)
