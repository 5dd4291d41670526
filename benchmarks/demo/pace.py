"""How fast this machine trains, so that the demo learns for as long as there is time, and no longer."""

import math
import statistics
import time
from dataclasses import dataclass

import torch
from torch.nn import functional

from train.choices import Preset, StepPrecision, TrainingDevice
from train.learning.optimizer import training_precision
from train.learning.recipes import PRESETS, Recipe
from train.models.backbones import CLASSES, build_backbone
from train.models.network import keep_memory

WARM_UP_STEPS, STEPS = 1, 4
ENOUGH_S = 15.0
"""A machine on which the steps take this long is slow enough to be told by those that it did."""

LEARNT, JUDGED = 0.7, 0.15
"""Shares of the pictures that an epoch learns from, and is then judged on."""

JUDGING = 1 / 3
"""The work on a picture that is judged, against one that is learnt: forward against forward and back."""


@dataclass(frozen=True)
class Pace:
    """What a machine has time for.

    Attributes:
        images_per_second: of training steps; None on a GPU, where it doesn't matter.
        epochs, most: that it is given, and that the recipe has.
    """

    images_per_second: float | None
    epochs: int
    most: int

    def __str__(self) -> str:
        if self.images_per_second is None:
            return f"This machine has a GPU to learn on: {self.epochs} epochs."
        return (
            f"This machine learns {self.images_per_second:.0f} pictures a second: {self.epochs} of {self.most} epochs."
        )


def choose_epochs(arch: str, pictures: int, seconds: float, fewest: int) -> Pace:
    """Return how many of the demo's epochs fit into `seconds` on this machine, `fewest` at least.

    Args:
        arch: the backbone.
        pictures: of all splits.
        seconds: the time there is.
        fewest: with less it would not learn.
    """
    recipe = PRESETS[Preset.DEMO]
    if torch.cuda.is_available():
        return Pace(None, recipe.epochs, recipe.epochs)
    pace = images_per_second(arch, recipe)
    epochs = math.floor(seconds * pace / (pictures * (LEARNT + JUDGED * JUDGING)))
    return Pace(pace, min(recipe.epochs, max(fewest, epochs)), recipe.epochs)


def images_per_second(arch: str, recipe: Recipe) -> float:
    """Return how many pictures a second a training step takes on the CPU, on made numbers."""
    keep_memory()
    model = build_backbone(arch).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters(), recipe.learning_rate)
    half = training_precision(StepPrecision.AUTO, TrainingDevice.CPU, model) == "bf16"
    side = recipe.input_size or 224
    images = torch.randn(recipe.batch, 3, side, side).to(memory_format=torch.channels_last)
    labels = torch.arange(recipe.batch) % CLASSES
    seconds: list[float] = []
    while len(seconds) < WARM_UP_STEPS + STEPS and not (len(seconds) > WARM_UP_STEPS and sum(seconds) > ENOUGH_S):
        began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - began)
    return recipe.batch / statistics.median(seconds[WARM_UP_STEPS:])
