"""Makes the golden pictures of a bundle: drawn faces whose logits lie far apart, and what a device may differ by."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from board_setup.isa import CAPS, cpu_flags, widest_isa
from edge_runtime.model.contract import ModelContract
from edge_runtime.model.golden import Golden
from edge_runtime.pixels.pictures import read_picture
from edge_runtime.pixels.preprocess import face_pixels
from export.children.process import Workers
from export.int8.measure import measure_networks
from train.data.build import FaceRecord
from train.models.network import torch_logits
from train.sample_faces import sample_face

POOL = 16
PICTURES = 8
SIZE = 256

CPU_FLOOR = 0.001
"""Logits of a right CPU differ by about 1e-5; this is room for kernels that were never seen."""


def draw_golden(folder: Path, model: nn.Module, contract: ModelContract) -> list[Path]:
    """Write the golden pictures (PNG) into `folder`: of POOL drawn faces those whose logits are spread widest.

    Only pictures with different answers can show that a device gives the right ones.
    """
    folder.mkdir(parents=True, exist_ok=True)
    size = max(SIZE, contract.input_size)
    drawn = [
        face for seed in range(POOL // 2) for face in (sample_face(seed, "real", size), sample_face(seed, "fake", size))
    ]
    network = torch_logits(model, contract)
    logits = np.stack([network(face_pixels(face, None, contract)).mean(axis=0) for face in drawn])
    order = np.argsort(logits[:, 1] - logits[:, 0])
    paths = []
    for place, index in enumerate(order[np.linspace(0, len(order) - 1, PICTURES).round().astype(int)]):
        path = folder / f"{place}.png"
        drawn[index].save(path)
        paths.append(path)
    return paths


def measure_golden(
    workers: Workers, pictures: Sequence[Path], networks: Mapping[str, Path], model: nn.Module, contract: ModelContract
) -> Golden:
    """Measure what each precision answers under each instruction set, and say what a device may differ by.

    Args:
        workers: measure.
        pictures: what `draw_golden` wrote.
        networks: IR by precision.
        model: the PyTorch network, to know what computing in half precision changes.
        contract: of the model.
    """
    records = [_record(path) for path in pictures]
    by_isa = {isa: workers.run(measure_networks, networks, contract, records, isa=isa) for isa in CAPS}
    logits = {name: {isa: by_isa[isa][name] for isa in CAPS} for name in networks}
    pixels = [face_pixels(read_picture(path), None, contract) for path in pictures]
    exact = _mean_logits(model, contract, pixels)
    half = _mean_logits(rounded_to_half(model), contract, pixels)
    tolerance = {
        name: _tolerance(list(found.values()), exact, float(np.abs(half - exact).max()))
        for name, found in logits.items()
    }
    return Golden(
        pictures=[f"golden/{path.name}" for path in pictures],
        isas={"native": widest_isa(cpu_flags()), "avx2": "AVX2", "sse42": "SSE4.2"},
        logits={
            name: {isa: values.astype(float).tolist() for isa, values in found.items()}
            for name, found in logits.items()
        },
        tolerance=tolerance,
    )


def _tolerance(answers: Sequence[NDArray[np.float32]], exact: NDArray[np.float32], half: float) -> dict[str, float]:
    """Say how far from the nearest known answers a right device may be.

    A CPU: four times what instruction sets differ by among themselves, or a quarter of what the precision itself
    changes, whichever is more: an INT8 sum that is rounded elsewhere moves logits by less than quantizing did. A device
    of half precision: four times what half precision changes in PyTorch, on top of it.
    """
    between = max(float(np.abs(first - second).max()) for first in answers for second in answers)
    own = float(np.abs(answers[-1] - exact).max())
    cpu = max(CPU_FLOOR, 4.0 * between, 0.25 * own)
    return {"CPU": cpu, "GPU": cpu + own + 4.0 * half}


def rounded_to_half(model: nn.Module) -> nn.Module:
    """Return a copy of `model` whose weights and whose layers' outputs are rounded to half precision.

    That is what a device of half precision does that sums in single precision; PyTorch's own half precision on a CPU
    takes minutes.
    """
    copy = deepcopy(model)
    with torch.no_grad():
        for value in (*copy.parameters(), *copy.buffers()):
            if value.is_floating_point():
                value.copy_(value.half().float())
    for layer in copy.modules():
        if not list(layer.children()):
            layer.register_forward_hook(lambda layer, given, found: found.half().float())
    return copy


def _mean_logits(model: nn.Module, contract: ModelContract, pixels: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    network = torch_logits(model, contract)
    return np.stack([network(crops).mean(axis=0) for crops in pixels])


def _record(path: Path) -> FaceRecord:
    return FaceRecord(path, 0, "valid", "golden", "", "", None, "", "", 0, 0, 0.0)
