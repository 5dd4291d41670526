"""Every backbone through ONNX, FP32 and INT8; what stays in floating point; accuracy control."""

from pathlib import Path

import numpy as np
import openvino as ov
import pytest
import torch
from torch import nn

from edge_runtime.classifier import Classifier
from edge_runtime.contract import ModelContract, PixelRecipe
from export.faces import ExportFaces, choose_faces
from export.quantize import Candidate, beside_the_logits, last_layer, layers_that_hurt, quantize
from export.saliency import OUTPUTS, explain
from export.to_onnx import OnnxNetwork, to_onnx
from export.to_openvino import save_network, to_openvino
from train.backbones import BACKBONES
from train.evaluate import judge
from train.torch_network import torch_logits


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


def byte_weights(xml: Path) -> int:
    model = ov.Core().read_model(xml)
    kinds = [op.get_element_type() for op in model.get_ops() if op.get_type_name() == "Constant"]
    return sum(kind == ov.Type.i8 for kind in kinds)


def lively(model: nn.Module) -> nn.Module:
    """Give an untrained network's batch norms the statistics of some pictures: else its logits are all alike."""
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(8, 3, 64, 64))
    return model.eval()


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(BACKBONES) - {"vit_hf"}))
def test_every_backbone_goes_through_onnx_fp32_and_int8(name: str, faces: ExportFaces, tmp_path: Path) -> None:
    transformer = name.startswith("vit")
    torch.manual_seed(0)
    model = BACKBONES[name].build(2).eval()
    what = contract(name, 224 if transformer else 64)
    if not transformer:
        model = lively(model)
    xml = converted(model, what, tmp_path)
    exact = judge(torch_logits(model, what), what, faces.measured)
    for other in (OnnxNetwork(tmp_path / "model.onnx", what), Classifier(xml, what).logits):
        np.testing.assert_allclose(judge(other, what, faces.measured), exact, atol=1e-3, rtol=1e-3)
    quantize(xml, tmp_path / "int8" / "model.xml", Candidate(), what, faces.calibration[:4], lambda count: None)
    assert byte_weights(tmp_path / "int8" / "model.xml") > 5
    assert np.isfinite(judge(Classifier(tmp_path / "int8" / "model.xml", what).logits, what, faces.measured)).all()


def test_the_last_layer_and_what_lies_beside_the_logits_stay_in_floating_point(
    tiny_fp32: Path, faces: ExportFaces, tmp_path: Path
) -> None:
    model = ov.Core().read_model(tiny_fp32)
    assert beside_the_logits(model)
    assert last_layer(model) not in beside_the_logits(model)
    quantize(
        tiny_fp32, tmp_path / "model.xml", Candidate(), contract("tiny", 32), faces.calibration, lambda count: None
    )
    quantized = ov.Core().read_model(tmp_path / "model.xml")
    kinds = {op.get_friendly_name(): op for op in quantized.get_ordered_ops()}
    head = kinds[last_layer(quantized)]
    assert all(given.get_source_output().get_node().get_type_name() != "FakeQuantize" for given in head.inputs())
    assert byte_weights(tmp_path / "model.xml") == 3


@pytest.mark.xfail(reason="accuracy control runs through but does not yet end as expected here", strict=False)
def test_accuracy_control_gives_layers_back_until_the_judge_is_content(
    tiny_fp32: Path, faces: ExportFaces, tmp_path: Path
) -> None:
    what = contract("tiny", 32)
    exact = judge(Classifier(tiny_fp32, what).logits, what, faces.measured)

    def close(logits: np.ndarray) -> float:
        # One picture of eight bits less would already be a drop of more than 0.01.
        return 1.0 - float(np.abs(logits - exact).max())

    out = tmp_path / "model.xml"
    told: list[int] = []
    quantize(tiny_fp32, out, Candidate(control=True), what, faces.calibration, told.append, (faces.measured, close))
    assert byte_weights(out) < 3
    assert sum(told) == len(faces.calibration)
    np.testing.assert_allclose(judge(Classifier(out, what).logits, what, faces.measured), exact, atol=0.011)


def test_layers_that_hurt_are_named_as_in_pytorch_the_worst_first(
    tiny_fp32: Path, faces: ExportFaces, tmp_path: Path
) -> None:
    what, out = contract("tiny", 32), tmp_path / "model.xml"
    quantize(tiny_fp32, out, Candidate(), what, faces.calibration, lambda count: None)
    worst = layers_that_hurt(tiny_fp32, out, what, faces.calibration)
    assert {found.layer for found in worst} == {"body.0", "body.3", "body.6"}
    assert [found.added for found in worst] == sorted((found.added for found in worst), reverse=True)
    assert worst[0].added > 0


@pytest.mark.xfail(strict=True, reason="the attention of Hugging Face's ViT can't be traced for its saliency map yet")
def test_hugging_faces_vit_can_be_explained() -> None:
    explain(BACKBONES["vit_hf"].build(2).eval(), BACKBONES["vit_hf"])
