"""The board's 16-bit sums: the workstation shows what they do to INT8, and the overflow fix holds."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from board_setup.isa import BOARD, cpu_flags
from board_setup.workstation import twin
from edge_runtime.model.contract import ModelContract, PixelRecipe
from edge_runtime.pixels.pictures import read_picture
from edge_runtime.pixels.preprocess import face_pixels
from export.children.process import start_workers
from export.convert.onnx import to_onnx
from export.convert.openvino import save_network, to_openvino
from export.convert.saliency import explain
from export.faces import ExportFaces, choose_faces
from export.int8.measure import measure_networks
from export.int8.quantize import Int8Candidate, quantize
from train.models.backbones import Backbone

SIDE = 32
CONTRACT = ModelContract("tiny", input_size=SIDE, pixels=PixelRecipe(resize_to=None), mean=(0.0,) * 3, scale=(1.0,) * 3)


ON_THE_TWIN = """
import json, sys
import numpy as np
from edge_runtime.inference.classifier import Classifier
from edge_runtime.model.contract import ModelContract
network, contract, pixels, out = sys.argv[1:]
classifier = Classifier(network, ModelContract.from_dict(json.loads(contract)), hint="LATENCY")
np.save(out, classifier.logits(np.load(pixels)))
"""


@pytest.fixture(scope="module")
def faces(tiny_data: Path) -> ExportFaces:
    return choose_faces(tiny_data, calibration=8, measured=8)


@pytest.fixture(scope="module")
def summing(tiny_backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with large positive weights only, so that its sums are as large as they can be."""
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


@pytest.fixture(scope="module")
def answers(summing: Path, faces: ExportFaces) -> dict[str, dict[str, np.ndarray]]:
    """Logits by instruction set and network: FP32, INT8 with (ENABLE) and without (DISABLE) the overflow fix."""
    networks = {"fp32": summing}
    for fix in ("ENABLE", "DISABLE"):
        networks[fix] = summing.parent / fix / "model.xml"
        quantize(summing, networks[fix], Int8Candidate(overflow_fix=fix), CONTRACT, faces.calibration)
    with start_workers() as workers:
        given = (measure_networks, networks, CONTRACT, faces.measured)
        return {isa: workers.run(*given, isa=isa) for isa in ("native", BOARD)}


def apart(answers: dict[str, dict[str, np.ndarray]], name: str) -> float:
    """How far a network's logits are apart between this CPU and the board's instruction set."""
    return float(np.abs(answers["native"][name] - answers[BOARD][name]).max())


def test_sums_overflow_under_the_boards_cap_without_the_fix(answers: dict[str, dict[str, np.ndarray]]) -> None:
    if not cpu_flags() & {"avx512_vnni", "avx_vnni", "amx_int8"}:
        pytest.skip("needs a CPU with VNNI")
    own = float(np.abs(answers["native"]["DISABLE"] - answers["native"]["fp32"]).max())
    assert apart(answers, "fp32") < 1e-5
    assert apart(answers, "ENABLE") < 1e-4
    assert apart(answers, "DISABLE") > 10 * max(own, apart(answers, "ENABLE"))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(twin.QEMU) is None, reason="needs qemu-user")
def test_sums_saturate_on_the_twin_as_capped(
    summing: Path, faces: ExportFaces, answers: dict[str, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    pixels = [face_pixels(read_picture(face.path), face.box, CONTRACT) for face in faces.measured]
    np.save(tmp_path / "pixels.npy", np.concatenate(pixels))
    network, contract = summing.parent / "DISABLE" / "model.xml", json.dumps(CONTRACT.to_dict())
    given = [str(network), contract, str(tmp_path / "pixels.npy"), str(tmp_path / "logits.npy")]
    command = twin.twin_command([sys.executable, "-c", ON_THE_TWIN, *given])
    done = subprocess.run(command, env=twin.twin_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    exact, capped = np.load(tmp_path / "logits.npy"), answers[BOARD]
    np.testing.assert_allclose(exact, capped["DISABLE"], rtol=0, atol=1e-6)
    # Without saturation, rounding to bytes would move them by about a hundredth.
    assert np.abs(exact - capped["fp32"]).max() > 0.05 * np.abs(capped["fp32"]).max()
    if apart(answers, "DISABLE") > 1e-4:
        # This CPU has VNNI. One with AVX2 only saturates as the board does and gives the same answers.
        assert np.abs(exact - answers["native"]["DISABLE"]).max() > 1e-4
