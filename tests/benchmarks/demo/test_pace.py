import pytest
import torch

from benchmarks.demo import pace as demo_pace
from benchmarks.demo.pace import Pace, choose_epochs
from train.learning.recipes import PRESETS

MOST = PRESETS["demo"].epochs
# Of 1,000 pictures 700 are trained on, and 150 validated on at a third of the cost.
AN_EPOCH = 750


@pytest.fixture
def on_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize(("epochs_that_fit", "given"), [(12.9, 12), (2.0, 8), (100.0, MOST)])
def test_epochs_fit_the_time_within_limits(on_cpu, monkeypatch, epochs_that_fit, given):
    monkeypatch.setattr(demo_pace, "images_per_second", lambda *_: epochs_that_fit * AN_EPOCH / 200.0)
    assert choose_epochs("resnet50", 1000, 200.0, fewest=8).epochs == given


def test_gpu_gets_all_epochs(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(demo_pace, "images_per_second", lambda *_: pytest.fail("measured"))
    assert choose_epochs("resnet50", 1000, 1.0, fewest=8) == Pace(None, MOST, MOST)
