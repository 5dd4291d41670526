"""From a checkpoint to a checked ONNX file."""

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn

from edge_runtime.errors import CheckpointError, UsageError
from edge_runtime.model.contract import ModelContract
from edge_runtime.pixels.preprocess import normalized
from train.models.checkpoint import Checkpoint, import_state_dict, load_checkpoint

INPUT = "image"


def read_source(
    path: Path,
    *,
    arch: str | None = None,
    labels: Sequence[str] | None = None,
    preset: str | None = None,
    average: bool = False,
) -> Checkpoint:
    """Read a checkpoint of this project, or with `arch`, `labels` and `preset` weights of another training.

    `average` takes the running average of those weights.

    Raises:
        CheckpointError: it can't be read, does not fit, or holds a value that is NaN or infinite.
        UsageError: only some of the three are given.
    """
    given = (arch, labels, preset)
    if any(given) and not all(given):
        raise UsageError("a bare state_dict needs --arch, --labels and --input together")
    if arch and labels and preset:
        checkpoint = import_state_dict(path, arch=arch, labels=labels, input_preset=preset, average=average)
    elif average:
        raise UsageError("--use-ema is for a bare state_dict: give --arch, --labels and --input too")
    else:
        checkpoint = load_checkpoint(path)
    broken = [key for key, value in checkpoint.state_dict.items() if not torch.isfinite(value).all()]
    if broken:
        raise CheckpointError(
            f"{checkpoint.path}: {len(broken)} tensors hold NaN or infinity ({broken[0]} is the first); "
            "the training diverged, take an earlier checkpoint"
        )
    return checkpoint


def to_onnx(model: nn.Module, contract: ModelContract, path: Path, outputs: Sequence[str]) -> None:
    """Write `model` as ONNX with a dynamic batch, all weights in the one file, and check it.

    `model` is in evaluation mode, from normalized float images [N, 3, H, W] to `outputs`.
    """
    side = contract.input_size
    with quiet_torch():
        program = torch.onnx.export(
            model,
            (torch.zeros(2, 3, side, side),),
            dynamo=True,
            input_names=[INPUT],
            output_names=list(outputs),
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    assert program is not None
    for node in program.model.graph:
        # The exporter notes the source line of every operation, with paths of this machine.
        node.metadata_props.clear()
    program.model.metadata_props["deepfake_edge_contract"] = json.dumps(contract.to_dict(), sort_keys=True)
    program.save(path, external_data=False)
    onnx.checker.check_model(str(path), full_check=True)


@contextlib.contextmanager
def quiet_torch() -> Iterator[None]:
    """Keep the warnings of torch's exporter off the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


class OnnxNetwork:
    """An ONNX file run by ONNX Runtime: pixels uint8 [N, H, W, 3] to logits [N, 2], like the other engines."""

    def __init__(self, path: Path, contract: ModelContract) -> None:
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.contract = contract

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the logits of `pixels`."""
        logits: NDArray[np.float32] = self.session.run(["logits"], {INPUT: normalized(pixels, self.contract)})[0]
        return logits
