"""Make a bundle's golden pictures: drawn or given faces with known logits, and how far from these a device may be."""

import contextlib
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import nn

from board_setup.isa import CAPS, cpu_flags, widest_isa
from edge_runtime.errors import PictureError, UsageError
from edge_runtime.model.contract import ModelContract
from edge_runtime.model.golden import Golden
from edge_runtime.paths import expand
from edge_runtime.pixels.pictures import read_picture
from edge_runtime.pixels.preprocess import face_pixels
from export.children.process import Workers
from export.faces import drawn_record
from export.int8.gate import Logits, margins
from export.int8.measure import measure_networks
from train.models.network import torch_logits
from train.sample_faces import sample_face

POOL, GIVEN = 16, 64
"""Draw this many; look at this many given ones at most."""

PICTURES = 8
SIZE = 256
"""Pixels a side of the pictures, unless the network's input is larger."""

CPU_FLOOR = 0.001
"""Logits of a correct CPU differ by about 1e-5; this leaves room for kernels that were never seen."""


def golden_pool(given: Path | None, contract: ModelContract) -> list[Image.Image]:
    """Return faces to choose golden pictures from: drawn ones, or the centre squares of the pictures in `given`.

    Raises:
        UsageError: the folder holds fewer than two pictures that can be read.
    """
    size = max(SIZE, contract.input_size)
    if given is None:
        return [sample_face(seed, kind, size) for seed in range(POOL // 2) for kind in ("real", "fake")]
    pictures = []
    try:
        for path in sorted(path for path in expand(given).iterdir() if path.is_file()):
            with contextlib.suppress(PictureError):
                pictures.append(ImageOps.fit(read_picture(path), (size, size), Image.Resampling.BICUBIC))
            if len(pictures) == GIVEN:
                break
    except OSError as error:
        raise UsageError(f"--golden {given}: can't be read ({error.strerror or error})") from None
    if len(pictures) < 2:
        raise UsageError(f"--golden {given}: holds {len(pictures)} pictures that can be read; give two or more")
    return pictures


def write_golden(folder: Path, pool: Sequence[Image.Image], model: nn.Module, contract: ModelContract) -> list[Path]:
    """Write the golden pictures (PNG) into `folder`: of `pool`, those with the most widely spread logits.

    Only pictures with different answers can show that a device gives the right ones.
    """
    folder.mkdir(parents=True, exist_ok=True)
    network = torch_logits(model, contract)
    logits = np.stack([network(face_pixels(face, None, contract)).mean(axis=0) for face in pool])
    places = np.linspace(0, len(pool) - 1, min(PICTURES, len(pool))).round().astype(int)
    paths = [folder / f"{number}.png" for number in range(len(places))]
    for path, index in zip(paths, np.argsort(margins(logits))[places], strict=True):
        pool[index].save(path)
    return paths


def measure_golden(
    workers: Workers, pictures: Sequence[Path], networks: Mapping[str, Path], model: nn.Module, contract: ModelContract
) -> Golden:
    """Measure what each precision answers under each instruction set, and derive what a device may differ by.

    A correct CPU may be as far from the nearest known answer as four times what instruction sets differ by among
    themselves, or a quarter of what the precision itself changes, whichever is more: an INT8 sum that is rounded
    elsewhere moves logits by less than quantizing did. A device of half precision may add to that four times what half
    precision changes in PyTorch.
    """
    records = [drawn_record(path, 0) for path in pictures]
    by_isa = {isa: workers.run(measure_networks, networks, contract, records, isa=isa) for isa in CAPS}
    pixels = [face_pixels(read_picture(path), None, contract) for path in pictures]

    def pytorch(network: nn.Module) -> Logits:
        answer = torch_logits(network, contract)
        return np.stack([answer(crops).mean(axis=0) for crops in pixels])

    exact = pytorch(model)
    half = float(np.abs(pytorch(rounded_to_half(model)) - exact).max())
    logits: dict[str, dict[str, list[list[float]]]] = {}
    tolerance: dict[str, dict[str, float]] = {}
    for name in networks:
        answers = np.stack([by_isa[isa][name] for isa in CAPS])
        between = float(np.ptp(answers, axis=0).max())
        own = float(np.abs(answers[-1] - exact).max())
        cpu = max(CPU_FLOOR, 4.0 * between, 0.25 * own)
        tolerance[name] = {"CPU": cpu, "GPU": cpu + own + 4.0 * half}
        logits[name] = {isa: by_isa[isa][name].astype(float).tolist() for isa in CAPS}
    return Golden(
        pictures=[f"golden/{path.name}" for path in pictures],
        isas={"native": widest_isa(cpu_flags()), "avx2": "AVX2", "sse42": "SSE4.2"},
        logits=logits,
        tolerance=tolerance,
    )


def rounded_to_half(model: nn.Module) -> nn.Module:
    """Return a copy of `model` whose weights and whose layers' outputs are rounded to half precision.

    This is what a device does that stores in half precision and sums in single precision. PyTorch's own half precision
    takes minutes on a CPU.
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
