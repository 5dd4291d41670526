"""Every backbone, from its first training step to the runtime's verdict."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.models.vision_transformer import VisionTransformer

from edge_runtime.model.contract import CHECKPOINT, Verdict
from export.convert.onnx import OnnxNetwork, to_onnx
from export.convert.openvino import save_network, to_openvino
from export.convert.saliency import OUTPUTS, explain
from export.int8.quantize import Int8Candidate, layers_in_int8, quantize
from train.commands.train import calibrate_checkpoint
from train.data.build import load_data
from train.data.catalog import Catalog
from train.data.sample import pick_faces
from train.evaluation.logits import checkpoint_logits, judge, network_logits
from train.learning.recipes import Recipe
from train.learning.trainer import Trainer
from train.models.backbones import BACKBONES, find_backbone
from train.models.checkpoint import load_checkpoint, load_model
from train.models.network import torch_logits
from train.models.vit import ACCEPTED

SIDE = 64
SMALL = {"image_size": SIDE, "patch_size": 16, "num_layers": 2, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 48}
"""A small network in place of torchvision's vit_b_16, which takes only 224 pixels and has 86 million weights."""

SMALL_HUB = dict(zip(ACCEPTED, (32, 2, 2, 48, SIDE, 16), strict=True))


@pytest.fixture(scope="module")
def few(faces):
    """Sixteen faces for training and four for validation."""
    catalog = load_data(faces, split="60/40")
    return Catalog((*pick_faces(catalog.split("train"), 16), *pick_faces(catalog.split("valid"), 4)))


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """Prepare a backbone and return its first weights; the two transformers are made small."""

    def prepare(name):
        if name == "vit_b_16":
            small = replace(BACKBONES[name], build=lambda classes: VisionTransformer(num_classes=classes, **SMALL))
            monkeypatch.setitem(BACKBONES, name, small)
        if name != "vit_hf":
            return "none"
        transformers = pytest.importorskip("transformers", reason="needs transformers")
        network = transformers.ViTForImageClassification(transformers.ViTConfig(**SMALL_HUB))
        network.save_pretrained(tmp_path / "hub")
        return str(tmp_path / "hub")

    yield prepare
    shutil.rmtree(tmp_path)  # some checkpoints have hundreds of megabytes


@pytest.mark.parametrize("side", [128, 160])
def test_front_end_and_input_size_go_into_the_ir(few, tmp_path, tiny_backbone, side):
    recipe = Recipe(weights="none", input_size=side, epochs=1, batch=8, chances={}, ema=0.5, front_end="residual")
    best = Trainer(few, "tiny", recipe, tmp_path / "run", workers=0, precision="no", device="cpu").run()
    checkpoint = load_checkpoint(best)
    assert checkpoint.options == {"front_end": "residual"}
    contract, explained = checkpoint.contract, explain(load_model(checkpoint), tiny_backbone)
    onnx, fp32, int8 = (tmp_path / file for file in ("model.onnx", "fp32.xml", "int8.xml"))
    to_onnx(explained.network, contract, onnx, explained.outputs)
    network = to_openvino(onnx, contract)
    assert list(network.input().shape) == [1, 3, side, side]
    save_network(network, fp32)
    exact, found = checkpoint_logits(best, few.records), network_logits(fp32, contract, few.records)
    np.testing.assert_allclose(found, exact, atol=1e-4)
    plain = replace(checkpoint, options={})
    without = judge(torch_logits(load_model(plain), contract), contract, few.records)
    assert np.abs(without - exact).max() > 0.01
    darker, brighter = (
        network_logits(
            fp32, contract, few.records, corrupt=lambda picture, _, by=by: picture.point(lambda v: v // 2 + by)
        )
        for by in (32, 64)
    )
    np.testing.assert_allclose(brighter, darker, atol=1e-4)  # it does not see brightness
    quantize(fp32, int8, Int8Candidate(), contract, few.records[:4])
    assert layers_in_int8(int8) > 2
    assert np.abs(network_logits(int8, contract, few.records) - exact).max() < 0.2


@pytest.mark.slow
@pytest.mark.parametrize("name", list(BACKBONES))
def test_backbone_is_trained_exported_and_run(name, few, weights, tmp_path):
    front_end = "residual" if name in ("efficientnet_lite0", "vit_b_16", "vit_hf") else "none"
    recipe = Recipe(weights=weights(name), input_size=SIDE, epochs=1, batch=8, chances={}, ema=0.0, front_end=front_end)
    run = Trainer(few, name, recipe, tmp_path / "run", workers=0, precision="no", device="cpu")
    before = {key: value.clone() for key, value in run.state.model.state_dict().items()}
    best = run.run()
    valid = few.split("valid")
    contract = calibrate_checkpoint(best, few, checkpoint_logits(best, valid), max_fpr=0.01, max_fnr=0.01)
    learnt = load_checkpoint(best).state_dict
    body = [key for key in learnt if key.endswith("weight")]
    assert sum(not torch.equal(learnt[key], before[key]) for key in body) > 0.9 * len(body)

    explained = explain(load_model(load_checkpoint(best)), find_backbone(name))
    onnx, fp32, int8 = (tmp_path / file for file in ("model.onnx", "fp32.xml", "int8.xml"))
    to_onnx(explained.network, contract, onnx, explained.outputs)
    save_network(to_openvino(onnx, contract), fp32)
    exact, found = checkpoint_logits(best, few.records), network_logits(fp32, contract, few.records)
    np.testing.assert_allclose(found, exact, atol=1e-3, rtol=1e-3)
    np.testing.assert_allclose(judge(OnnxNetwork(onnx, contract), contract, few.records), exact, atol=1e-3, rtol=1e-3)
    assert np.ptp(found[:, 1] - found[:, 0]) > 0
    quantize(fp32, int8, Int8Candidate(), contract, few.records[:4])
    assert layers_in_int8(int8) > 5
    assert np.isfinite(network_logits(int8, contract, few.records)).all()
    if explained.apart:
        to_onnx(explained.apart, contract, onnx, OUTPUTS)
        assert {output.get_any_name() for output in to_openvino(onnx, contract).outputs} == set(OUTPUTS)
    reading = contract.calibration(CHECKPOINT)
    assert all(isinstance(reading.verdict(reading.score(float(row[1] - row[0]))), Verdict) for row in found)
