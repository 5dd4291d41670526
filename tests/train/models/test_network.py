import subprocess
import sys

import numpy as np
import pytest
import torch

from edge_runtime.model.contract import ModelContract
from train.models.backbones import build_backbone
from train.models.checkpoint import INPUTS
from train.models.network import normalize, torch_logits

CONTRACT = ModelContract("resnet18", input_size=64, pixels=INPUTS["native"])


def test_pixels_are_normalized_once():
    pixels = torch.tensor([[[[0, 51, 255]]]], dtype=torch.uint8)
    expected = (torch.tensor([0.0, 0.2, 1.0]) - torch.tensor(CONTRACT.mean)) / torch.tensor(CONTRACT.scale)
    assert torch.allclose(normalize(pixels, CONTRACT).flatten(), expected)


def test_judging_keeps_batch_statistics_fixed():
    torch.manual_seed(0)
    model = build_backbone("resnet18").train()
    before = model.bn1.running_mean.clone()
    pixels = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    logits = torch_logits(model, CONTRACT)
    alone = np.concatenate([logits(picture[None]) for picture in pixels])
    np.testing.assert_allclose(logits(pixels), alone, atol=1e-4)
    assert torch.equal(model.bn1.running_mean, before)


FAULTS = """
import resource, sys, torch
from train.models.network import keep_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(64, 2**18)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
default = (faults(), faults())[1]
assert keep_memory()
print(default, (faults(), faults())[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone has the switch")
def test_kept_memory_causes_no_page_faults():
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, timeout=120)
    default, kept = map(int, done.stdout.split())
    assert default > 10_000  # 64 MiB are 16,384 pages
    assert kept < 100
