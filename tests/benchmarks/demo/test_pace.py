import time
from collections.abc import Iterator

import pytest
import torch

from benchmarks.demo import pace as demo_pace
from benchmarks.demo.pace import Pace, choose_epochs, images_per_second
from train.learning.recipes import PRESETS

MOST = PRESETS["demo"].epochs
# 1,000 pictures of which 700 are learnt, and 150 judged at a third of the work each.
AN_EPOCH = 750


@pytest.fixture
def on_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize(("epochs_that_fit", "given"), [(12.9, 12), (2.0, 8), (100.0, MOST)])
def test_as_many_epochs_as_fit_but_neither_too_few_nor_more_than_the_recipe_has(
    on_cpu, monkeypatch, epochs_that_fit, given
):
    monkeypatch.setattr(demo_pace, "images_per_second", lambda *_: epochs_that_fit * AN_EPOCH / 200.0)
    assert choose_epochs("resnet50", 1000, 200.0, fewest=8).epochs == given


def test_with_a_gpu_nothing_is_measured(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(demo_pace, "images_per_second", lambda *_: pytest.fail("measured"))
    assert choose_epochs("resnet50", 1000, 1.0, fewest=8) == Pace(None, MOST, MOST)


def test_the_pace_is_a_steps_faces_by_its_time_and_the_first_step_does_not_count(monkeypatch):
    def ticks() -> Iterator[float]:
        now = 0.0
        for step_s in (50.0, 2.0, 2.0, 4.0, 2.0):
            yield now
            now += step_s
            yield now

    clock = ticks()
    monkeypatch.setattr(demo_pace, "ENOUGH_S", 1000.0)
    monkeypatch.setattr(demo_pace.time, "perf_counter", lambda: next(clock))
    assert images_per_second("resnet18", PRESETS["demo"].replace(input_size=32, batch=4)) == 2.0


def test_a_very_slow_machine_is_told_by_one_step(monkeypatch):
    monkeypatch.setattr(demo_pace, "ENOUGH_S", 0.0)
    began = time.perf_counter()
    pace = images_per_second("resnet18", PRESETS["demo"].replace(input_size=32, batch=4))
    assert pace >= 4 / (time.perf_counter() - began)
