"""Every backbone through ONNX, FP32 and INT8; layers in floating point; accuracy control."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edge_runtime.inference.classifier import Classifier
from edge_runtime.inference.core import openvino_core
from edge_runtime.model.bundle import Bundle
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

SMALL_VIT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}


@pytest.fixture(scope="module")
def faces(tiny_data: Path) -> ExportFaces:
    return choose_faces(tiny_data, calibration=12, measured=12)


def untrained(name: str) -> tuple[nn.Module, ModelContract]:
    """A backbone with random weights and a small input; Hugging Face's ViT is a small one."""
    torch.manual_seed(0)
    side = 32 if name == "vit_hf" else 224 if name.startswith("vit") else 64
    if name == "vit_hf":
        pytest.importorskip("transformers", reason="needs transformers")
        model = BACKBONES[name].build(2, image_size=side, patch_size=8, **SMALL_VIT)
    else:
        model = BACKBONES[name].build(2)
    if side == 64:
        # Fit the batch norms to some images; without that all logits are alike.
        with torch.no_grad():
            for _ in range(3):
                model.train()(torch.randn(8, 3, side, side))
    return model.eval(), ModelContract(name, input_size=side, pixels=PixelRecipe(resize_to=None))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_every_backbone_goes_through_onnx_fp32_and_int8(name: str, faces: ExportFaces, tmp_path: Path) -> None:
    (model, contract), path = untrained(name), tmp_path / "model.onnx"
    explained = explain(model, BACKBONES[name])
    to_onnx(explained.network, contract, path, explained.outputs)
    save_network(to_openvino(path, contract), tmp_path / "fp32.xml")
    if explained.apart:
        to_onnx(explained.apart, contract, tmp_path / "apart.onnx", OUTPUTS)
        save_network(to_openvino(tmp_path / "apart.onnx", contract), tmp_path / "apart.xml")
    exact = judge(torch_logits(model, contract), contract, faces.measured)
    for other in (OnnxNetwork(path, contract), Classifier(tmp_path / "fp32.xml", contract).logits):
        np.testing.assert_allclose(judge(other, contract, faces.measured), exact, atol=1e-3, rtol=1e-3)
    quantize(tmp_path / "fp32.xml", tmp_path / "int8.xml", Int8Candidate(), contract, faces.calibration[:4])
    assert layers_in_int8(tmp_path / "int8.xml") > 5
    assert np.isfinite(judge(Classifier(tmp_path / "int8.xml", contract).logits, contract, faces.measured)).all()


def test_the_head_and_the_saliency_branch_stay_in_floating_point(tiny_bundle: Bundle) -> None:
    model = openvino_core().read_model(tiny_bundle.model("fp32"))
    assert beside_the_logits(model)
    assert last_layer(model) not in beside_the_logits(model)
    quantized = openvino_core().read_model(tiny_bundle.model("int8"))
    operations = {op.get_friendly_name(): op for op in quantized.get_ordered_ops()}
    head = operations[last_layer(quantized)]
    assert all(given.get_source_output().get_node().get_type_name() != "FakeQuantize" for given in head.inputs())
    assert layers_in_int8(tiny_bundle.model("int8")) == 3
    assert layers_in_int8(tiny_bundle.model("fp32")) == 0


def test_accuracy_control_gives_back_only_the_worst_layers(
    tiny_bundle: Bundle, faces: ExportFaces, tmp_path: Path
) -> None:
    fp32, plain, contract = tiny_bundle.model("fp32"), tiny_bundle.model("int8"), tiny_bundle.contract
    exact = judge(Classifier(fp32, contract).logits, contract, faces.measured)

    def farthest(xml: Path) -> float:
        return float(np.abs(judge(Classifier(xml, contract).logits, contract, faces.measured) - exact).max())

    def quantizers(xml: Path) -> int:
        return sum(op.get_type_name() == "FakeQuantize" for op in openvino_core().read_model(xml).get_ops())

    allowed = 0.5 * farthest(plain)

    def half_as_far(logits: np.ndarray) -> float:
        return 1.0 - METRIC_DROP * float(np.abs(logits - exact).max()) / allowed

    out, steps = tmp_path / "model.xml", list[int]()
    control = Control(faces.measured, exact, half_as_far)
    quantize(fp32, out, Int8Candidate(control=True), contract, faces.calibration, control, advance=steps.append)
    assert sum(steps) == len(faces.calibration)
    assert 0 < quantizers(out) < quantizers(plain)
    assert farthest(out) <= allowed


def test_layers_that_hurt_are_named_as_in_pytorch(tiny_bundle: Bundle, faces: ExportFaces) -> None:
    networks = (tiny_bundle.model("fp32"), tiny_bundle.model("int8"))
    worst = layers_that_hurt(*networks, tiny_bundle.contract, faces.calibration)
    assert {found.layer for found in worst} == {"body.0", "body.3", "body.6"}
    assert [found.added for found in worst] == sorted((found.added for found in worst), reverse=True)
    assert worst[0].added > 0
