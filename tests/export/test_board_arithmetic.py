"""What the board's 16-bit sums do to INT8 is seen on the workstation, and the way round it holds."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from board_setup.isa import BOARD, cpu_flags
from edge_runtime.contract import ModelContract, PixelRecipe
from export.faces import ExportFaces, choose_faces
from export.jobs import Workers
from export.measure import measure_networks
from export.quantize import Candidate, quantize
from export.saliency import explain
from export.to_onnx import to_onnx
from export.to_openvino import save_network, to_openvino
from train.backbones import Backbone

SIDE = 32
CONTRACT = ModelContract("tiny", input_size=SIDE, pixels=PixelRecipe(resize_to=None), mean=(0.0,) * 3, scale=(1.0,) * 3)


@pytest.fixture(scope="module")
def faces(tiny_data: Path) -> ExportFaces:
    return choose_faces(tiny_data, calibration=8, measured=8)


@pytest.fixture(scope="module")
def summing(tiny_backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of large, positive weights alone: its sums are as large as sums can be."""
    torch.manual_seed(0)
    model = tiny_backbone.build(2).eval()
    for layer in model.body:
        if isinstance(layer, nn.Conv2d):
            nn.init.uniform_(layer.weight, 0.9, 1.0)
            layer.weight.data /= layer.weight[0].numel()
    folder = tmp_path_factory.mktemp("summing")
    explained = explain(model, tiny_backbone)
    to_onnx(explained.network, CONTRACT, folder / "model.onnx", explained.outputs)
    save_network(to_openvino(folder / "model.onnx", CONTRACT), folder / "fp32" / "model.xml")
    return folder / "fp32" / "model.xml"


def test_sums_that_overflow_on_the_board_are_seen_under_its_instruction_set_and_not_with_the_fix(
    summing: Path, faces: ExportFaces, tmp_path: Path
) -> None:
    if not cpu_flags() & {"avx512_vnni", "avx_vnni", "amx_int8"}:
        pytest.skip("needs a CPU with VNNI")
    networks = {}
    for fix in ("ENABLE", "DISABLE"):
        networks[fix] = tmp_path / fix / "model.xml"
        quantize(summing, networks[fix], Candidate(overflow_fix=fix), CONTRACT, faces.calibration, lambda count: None)
    with Workers() as workers:
        found = {
            isa: measure_networks(workers, {"fp32": summing, **networks}, CONTRACT, faces.measured, isa=isa)
            for isa in ("native", BOARD)
        }
    apart = {name: float(np.abs(found["native"][name] - found[BOARD][name]).max()) for name in found[BOARD]}
    own = float(np.abs(found["native"]["DISABLE"] - found["native"]["fp32"]).max())
    assert apart["fp32"] < 1e-5
    assert apart["ENABLE"] < 1e-4
    assert apart["DISABLE"] > 10 * max(own, apart["ENABLE"])
