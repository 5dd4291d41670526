"""A bundle with a network of about a hundred weights, for testing everything around the network."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from edge_runtime.model.bundle import MANIFEST, Manifest
from edge_runtime.model.contract import Calibration, Framing, ModelContract, PixelRecipe

SIZE = 32
"""Width and height of its input in pixels."""


def small_network(size: int = SIZE) -> ov.Model:
    """Return a network f32 [1, 3, size, size] → logits [1, 2]; the more red and the less blue, the more fake."""
    pixels = ops.parameter([1, 3, size, size], np.float32, name="pixels")
    kernel = np.zeros((4, 3, 3, 3), np.float32)
    for channel in range(3):
        kernel[channel, channel, 1, 1] = 1.0
    convolved = ops.convolution(pixels, ops.constant(kernel), [2, 2], [1, 1], [1, 1], [1, 1])
    pooled = ops.reduce_mean(convolved, ops.constant(np.array([2, 3])), keep_dims=False)
    weights = np.array([[-2, 0, 2, 0], [2, 0, -2, 0]], np.float32)
    logits = ops.matmul(pooled, ops.constant(weights), False, True)
    return ov.Model([logits], [pixels], "small")


def small_contract(**changes: object) -> ModelContract:
    """Return the contract of the small network with `changes`."""
    calibration = Calibration(temperature=1.0, low=0.3, high=0.7, fitted=True)
    contract = ModelContract(
        architecture="redness",
        version="1.4.0",
        input_size=SIZE,
        framing=Framing.WHOLE,
        pixels=PixelRecipe(resize_to=SIZE),
        calibrations={"fp32": calibration, "int8": calibration},
    )
    return contract.replace(**changes)


def write_small_bundle(
    folder: Path,
    contract: ModelContract | None = None,
    precisions: tuple[str, ...] = ("fp32", "int8"),
    face_model: Path | None = None,
    network: ov.Model | None = None,
) -> Path:
    """Write a bundle with `network` (default: the small one) in each of `precisions`; return its folder."""
    contract = contract or small_contract()
    for precision in precisions:
        (folder / precision).mkdir(parents=True)
        ov.save_model(
            network or small_network(contract.input_size), folder / precision / "model.xml", compress_to_fp16=False
        )
    if face_model is not None:
        (folder / "face").mkdir()
        shutil.copy(face_model, folder / "face" / "face_detection.tflite")
    paths = sorted(folder.rglob("*.*"))
    files = {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    (folder / MANIFEST).write_text(Manifest(contract, files).to_json(), encoding="utf-8")
    return folder
