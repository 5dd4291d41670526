"""From ONNX to OpenVINO IR in FP32 and FP16, with the contract written into each."""

import errno
from pathlib import Path

import openvino as ov

from edge_runtime.inference.core import openvino_core
from edge_runtime.model.contract import ModelContract
from export.children.scratch import ScratchFolder


def to_openvino(onnx_path: Path, contract: ModelContract) -> ov.Model:
    """Convert an ONNX file into a network with static shapes [1, 3, H, W]."""
    with ScratchFolder() as folder:
        # `convert_model` takes a path with a comma for several paths.
        link = folder / "model.onnx"
        link.symlink_to(onnx_path.absolute())
        model = ov.convert_model(link)
    model.reshape([1, 3, contract.input_size, contract.input_size])
    return model


def save_network(model: ov.Model, path: Path, *, half: bool = False) -> None:
    """Write an IR, with weights as they are or (`half`) as FP16, and read it back.

    OpenVINO reports no error when the disk is full.

    Raises:
        OSError: it was not written whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        ov.save_model(model, path, compress_to_fp16=half)
        openvino_core().read_model(path)
    except RuntimeError as error:
        raise OSError(errno.ENOSPC, "an IR was not written whole, is the disk full?", str(path)) from error


def write_contract(path: Path, contract: ModelContract) -> None:
    """Write the contract into the IR at `path`, under `model_info`, where Model API and DL Streamer read it."""
    model = openvino_core().read_model(path)
    for key, value in contract.to_rt_info().items():
        model.set_rt_info(value, ["model_info", key])
    partial = path.with_name("with_contract.xml")
    save_network(model, partial)
    # The weights are mapped into memory from the file that is about to be replaced.
    del model
    partial.replace(path)
    partial.with_suffix(".bin").replace(path.with_suffix(".bin"))
