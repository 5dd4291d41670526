"""Hugging Face's ViT (the second article's network), from a folder of weights to the runtime's answer."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edge_runtime import Detector
from edge_runtime.inference.classifier import Classifier
from edge_runtime.inference.core import openvino_core
from edge_runtime.model.bundle import Bundle
from edge_runtime.model.contract import Precision
from edge_runtime.model.golden import check_golden
from edge_runtime.pixels.pictures import read_picture
from edge_runtime.pixels.preprocess import face_pixels, normalized
from edge_runtime.pixels.quality import QualityLimits
from edge_runtime.web.service.heat import HeatNetwork
from export.export import export_bundle
from export.int8.gate import GateLimits
from train.data.build import load_data
from train.learning.recipes import Recipe
from train.learning.trainer import Trainer
from train.models.checkpoint import load_checkpoint, load_model
from train.models.network import torch_logits

transformers = pytest.importorskip("transformers", reason="needs transformers")

pytestmark = pytest.mark.slow
SIDE = 32
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}


@pytest.fixture(scope="module")
def checkpoint(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ViT, saved by Transformers and trained from there."""
    folder = tmp_path_factory.mktemp("vit")
    torch.manual_seed(0)
    config = transformers.ViTConfig(num_labels=3, image_size=SIDE, patch_size=8, **SMALL)
    transformers.ViTForImageClassification(config).save_pretrained(folder / "weights")
    recipe = Recipe(
        weights=str(folder / "weights"),
        pixels="article",
        input_size=SIDE,
        epochs=6,
        learning_rate=3e-3,
        batch=8,
        chances={},
        ema=0.0,
    )
    run = Trainer(load_data(tiny_data), "vit_hf", recipe, folder / "run", workers=0, precision="no", device="cpu")
    return run.run()


@pytest.fixture(scope="module")
def bundle(checkpoint: Path, tiny_data: Path, quick, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    # On 20 faces, one pair in the wrong order costs an AUC of 0.01.
    options = replace(quick, calibration_faces=20, measured_faces=20, limits=GateLimits(auc_loss=0.1, changed=0.2))
    return export_bundle(checkpoint, tiny_data, tmp_path_factory.mktemp("export") / "bundle", options=options)


def test_a_small_vit_is_trained_exported_and_run(bundle: Bundle, tiny_data: Path) -> None:
    bundle.check()
    assert bundle.contract.architecture == "vit_hf"
    assert bundle.precisions == tuple(Precision)
    for precision in bundle.precisions:
        assert check_golden(Classifier(bundle.model(precision), bundle.contract), bundle, precision).right
    detector = Detector(bundle, device="CPU", precision="int8", limits=QualityLimits(0, 0.0, 0.0))
    scores = [detector.detect(tiny_data / name / "07.png").faces[0].score for name in ("real", "fake")]
    assert scores[0] < scores[1]


def test_its_saliency_network_agrees_with_pytorch(bundle: Bundle, checkpoint: Path, tiny_data: Path) -> None:
    pixels = face_pixels(read_picture(tiny_data / "fake" / "07.png"), None, bundle.contract)
    path, options = bundle.file("saliency/model.xml"), {"INFERENCE_PRECISION_HINT": "f32"}
    found = openvino_core().compile_model(path, "CPU", options)(normalized(pixels, bundle.contract))
    exact = torch_logits(load_model(load_checkpoint(checkpoint)), bundle.contract)(pixels)
    np.testing.assert_allclose(found["logits"], exact, atol=0.01)  # It is stored in half precision.
    assert found["saliency_map"].shape == (1, 2, 4, 4)
    assert (found["saliency_map"] > 0).all()
    heat = HeatNetwork(Detector(bundle, device="CPU").engine)
    assert heat.available
    assert not heat.labelled
    np.testing.assert_allclose(heat.answer(pixels).logits[0, 2:], found["saliency_map"].ravel(), atol=1e-4)
