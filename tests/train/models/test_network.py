import numpy as np
import torch

from edge_runtime.model.contract import ModelContract
from train.models.backbones import build_backbone
from train.models.checkpoint import INPUTS
from train.models.network import normalize, torch_logits

CONTRACT = ModelContract("resnet18", input_size=64, pixels=INPUTS["native"])


def test_pixels_are_divided_by_255_once_before_mean_and_scale():
    pixels = torch.tensor([[[[0, 51, 255]]]], dtype=torch.uint8)
    expected = (torch.tensor([0.0, 0.2, 1.0]) - torch.tensor(CONTRACT.mean)) / torch.tensor(CONTRACT.scale)
    assert torch.allclose(normalize(pixels, CONTRACT).flatten(), expected)


def test_a_network_left_in_training_mode_is_judged_with_its_statistics_fixed():
    torch.manual_seed(0)
    model = build_backbone("resnet18").train()
    before = model.bn1.running_mean.clone()
    pixels = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    logits = torch_logits(model, CONTRACT)
    alone = np.concatenate([logits(picture[None]) for picture in pixels])
    np.testing.assert_allclose(logits(pixels), alone, atol=1e-4)
    assert torch.equal(model.bn1.running_mean, before)
