"""The classifier: a bundle's network, compiled for a device, from the model's pixels to logits."""

from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from edge_runtime.contract import ModelContract
from edge_runtime.errors import DeviceError


def build_network(core: ov.Core, path: Path, contract: ModelContract, batch: int = 1) -> ov.Model:
    """Read an IR and build the model's own preprocessing into it: u8 [batch, H, W, 3] in, logits [batch, 2] out."""
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

    On the CPU everything is computed in float32 or INT8: a CPU with bfloat16 would otherwise answer differently.

    Raises:
        DeviceError: the device is missing or can't compile it.
    """
    settings: dict[str, Any] = {"PERFORMANCE_HINT": hint, **properties}
    if device == "CPU":
        settings["INFERENCE_PRECISION_HINT"] = "f32"
    try:
        return core.compile_model(build_network(core, path, contract), device, settings)
    except RuntimeError as error:
        devices = ", ".join(core.available_devices)
        raise DeviceError(f"{device}: can't run {path} ({_first_line(error)}); devices here: {devices}") from error


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


class Classifier:
    """A compiled network whose queue is fed with many faces at once."""

    def __init__(self, path: Path, contract: ModelContract, *, device: str = "CPU", hint: str = "THROUGHPUT") -> None:
        self.contract = contract
        self.compiled = compile_network(ov.Core(), path, contract, device=device, hint=hint)
        self._queue = ov.AsyncInferQueue(self.compiled)
        self._queue.set_callback(_store)

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the logits [N, 2] of `pixels`, uint8 [N, H, W, 3]."""
        results = np.empty((len(pixels), 2), np.float32)
        for index, crop in enumerate(pixels):
            self._queue.start_async(crop[None], (results, index))
        self._queue.wait_all()
        return results


def _store(request: ov.InferRequest, place: tuple[NDArray[np.float32], int]) -> None:
    results, index = place
    # The request's own memory is used again: assigning copies it.
    results[index] = request.get_output_tensor(0).data[0]
