"""From ONNX to OpenVINO's IR: FP32 that is FP32, FP16, and the contract written into each."""

import errno
from pathlib import Path

import openvino as ov

from edge_runtime.inference.core import openvino_core
from edge_runtime.model.contract import ModelContract


def to_openvino(onnx_path: Path, contract: ModelContract) -> ov.Model:
    """Convert an ONNX file into a network with static shapes [1, 3, H, W]."""
    model = ov.convert_model(onnx_path)
    model.reshape([1, 3, contract.input_size, contract.input_size])
    return model


def save_network(model: ov.Model, path: Path, *, half: bool = False) -> None:
    """Write an IR; weights stay as they are unless `half`, which stores them as FP16."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _save(model, path, half=half)


def write_contract(path: Path, contract: ModelContract) -> None:
    """Write the contract into the IR at `path`, under `model_info` as Model API and DL Streamer read it."""
    model = openvino_core().read_model(path)
    for key, value in contract.to_rt_info().items():
        model.set_rt_info(value, ["model_info", key])
    partial = path.with_name("with_contract.xml")
    _save(model, partial)
    del model
    partial.replace(path)
    partial.with_suffix(".bin").replace(path.with_suffix(".bin"))


def _save(model: ov.Model, path: Path, *, half: bool = False) -> None:
    """Write an IR and read it back: OpenVINO does not tell of a disk that is full.

    Raises:
        OSError: it is not there whole.
    """
    try:
        ov.save_model(model, path, compress_to_fp16=half)
        openvino_core().read_model(path)
    except RuntimeError as error:
        raise OSError(errno.ENOSPC, "an IR was not written whole, is the disk full?", str(path)) from error
