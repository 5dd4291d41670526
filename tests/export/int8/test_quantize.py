"""Every backbone through ONNX, FP32 and INT8; layers in floating point; accuracy control."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edge_runtime.inference.classifier import Classifier
from edge_runtime.inference.core import openvino_core
from edge_runtime.model.contract import ModelContract, PixelRecipe
from export.convert.onnx import OnnxNetwork, to_onnx
from export.convert.openvino import save_network, to_openvino
from export.convert.saliency import OUTPUTS, explain
from export.faces import ExportFaces, choose_faces
from export.int8.quantize import (
    METRIC_DROP,
    Control,
    Int8Candidate,
    beside_the_logits,
    last_layer,
    layers_in_int8,
    layers_that_hurt,
    quantize,
)
from train.evaluation.logits import judge
from train.models.backbones import BACKBONES
from train.models.network import torch_logits

SMALL_VIT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 8,
}


@pytest.fixture(scope="module")
def faces(tiny_data: Path) -> ExportFaces:
    return choose_faces(tiny_data, calibration=12, measured=12)


@pytest.fixture(scope="module")
def tiny_fp32(tiny_model: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return converted(tiny_model, contract("tiny", 32), tmp_path_factory.mktemp("tiny"))


def contract(name: str, side: int) -> ModelContract:
    return ModelContract(name, input_size=side, pixels=PixelRecipe(resize_to=None))


def converted(model: nn.Module, contract: ModelContract, folder: Path) -> Path:
    explained = explain(model, BACKBONES[contract.architecture])
    to_onnx(explained.network, contract, folder / "model.onnx", explained.outputs)
    save_network(to_openvino(folder / "model.onnx", contract), folder / "fp32" / "model.xml")
    if explained.apart:
        to_onnx(explained.apart, contract, folder / "apart.onnx", OUTPUTS)
        save_network(to_openvino(folder / "apart.onnx", contract), folder / "apart" / "model.xml")
    return folder / "fp32" / "model.xml"


def quantizers(xml: Path) -> int:
    return sum(op.get_type_name() == "FakeQuantize" for op in openvino_core().read_model(xml).get_ops())


def lively(model: nn.Module) -> nn.Module:
    """Fit an untrained network's batch norms to some images; without that all its logits are alike."""
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(8, 3, 64, 64))
    return model.eval()


def untrained(name: str) -> tuple[nn.Module, ModelContract]:
    """A backbone with random weights and a small input; Hugging Face's ViT is a small one."""
    torch.manual_seed(0)
    if name == "vit_hf":
        pytest.importorskip("transformers", reason="needs transformers")
        return BACKBONES[name].build(2, **SMALL_VIT).eval(), contract(name, 32)
    if name.startswith("vit"):
        return BACKBONES[name].build(2).eval(), contract(name, 224)
    return lively(BACKBONES[name].build(2)), contract(name, 64)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_every_backbone_goes_through_onnx_fp32_and_int8(name: str, faces: ExportFaces, tmp_path: Path) -> None:
    model, what = untrained(name)
    xml = converted(model, what, tmp_path)
    exact = judge(torch_logits(model, what), what, faces.measured)
    for other in (OnnxNetwork(tmp_path / "model.onnx", what), Classifier(xml, what).logits):
        np.testing.assert_allclose(judge(other, what, faces.measured), exact, atol=1e-3, rtol=1e-3)
    quantize(xml, tmp_path / "int8" / "model.xml", Int8Candidate(), what, faces.calibration[:4])
    assert layers_in_int8(tmp_path / "int8" / "model.xml") > 5
    assert np.isfinite(judge(Classifier(tmp_path / "int8" / "model.xml", what).logits, what, faces.measured)).all()


def test_the_head_and_the_saliency_branch_stay_in_floating_point(
    tiny_fp32: Path, faces: ExportFaces, tmp_path: Path
) -> None:
    model = openvino_core().read_model(tiny_fp32)
    assert beside_the_logits(model)
    assert last_layer(model) not in beside_the_logits(model)
    quantize(tiny_fp32, tmp_path / "model.xml", Int8Candidate(), contract("tiny", 32), faces.calibration)
    quantized = openvino_core().read_model(tmp_path / "model.xml")
    kinds = {op.get_friendly_name(): op for op in quantized.get_ordered_ops()}
    head = kinds[last_layer(quantized)]
    assert all(given.get_source_output().get_node().get_type_name() != "FakeQuantize" for given in head.inputs())
    assert layers_in_int8(tmp_path / "model.xml") == 3
    assert layers_in_int8(tiny_fp32) == 0


def test_accuracy_control_gives_back_only_the_worst_layers(tiny_fp32: Path, faces: ExportFaces, tmp_path: Path) -> None:
    what = contract("tiny", 32)
    exact = judge(Classifier(tiny_fp32, what).logits, what, faces.measured)

    def farthest(xml: Path) -> float:
        return float(np.abs(judge(Classifier(xml, what).logits, what, faces.measured) - exact).max())

    plain, told = tmp_path / "plain.xml", list[int]()
    quantize(tiny_fp32, plain, Int8Candidate(), what, faces.calibration, advance=told.append)
    assert sum(told) == len(faces.calibration)
    allowed = 0.5 * farthest(plain)

    def half_as_far(logits: np.ndarray) -> float:
        return 1.0 - METRIC_DROP * float(np.abs(logits - exact).max()) / allowed

    out, told = tmp_path / "model.xml", []
    control = Control(faces.measured, exact, half_as_far)
    quantize(tiny_fp32, out, Int8Candidate(control=True), what, faces.calibration, control, advance=told.append)
    assert sum(told) == len(faces.calibration)
    assert 0 < quantizers(out) < quantizers(plain)
    assert farthest(out) <= allowed


def test_layers_that_hurt_are_named_as_in_pytorch(tiny_fp32: Path, faces: ExportFaces, tmp_path: Path) -> None:
    what, out = contract("tiny", 32), tmp_path / "model.xml"
    quantize(tiny_fp32, out, Int8Candidate(), what, faces.calibration)
    worst = layers_that_hurt(tiny_fp32, out, what, faces.calibration)
    assert {found.layer for found in worst} == {"body.0", "body.3", "body.6"}
    assert [found.added for found in worst] == sorted((found.added for found in worst), reverse=True)
    assert worst[0].added > 0
