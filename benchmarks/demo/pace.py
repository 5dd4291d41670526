"""Measures how fast this machine trains, to choose the demo's number of epochs."""

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
"""After this long no further step is measured: on so slow a machine the steps so far are enough."""

TRAIN_SHARE, VALID_SHARE = 0.7, 0.15
"""Shares of the pictures that an epoch trains and validates on."""

VALIDATION_COST = 1 / 3
"""Time to validate on a picture, relative to training on it: forward against forward and backward."""


@dataclass(frozen=True)
class Pace:
    """How many epochs a machine has time for.

    Attributes:
        images_per_second: training speed; None on a GPU, where it does not matter.
        epochs: the number chosen.
        most: the recipe's number of epochs.
    """

    images_per_second: float | None
    epochs: int
    most: int

    def __str__(self) -> str:
        if self.images_per_second is None:
            return f"This machine trains on a GPU: {self.epochs} epochs."
        return f"This machine trains on {self.images_per_second:.0f} images/s: {self.epochs} of {self.most} epochs."


def choose_epochs(arch: str, pictures: int, seconds: float, fewest: int) -> Pace:
    """Return how many of the demo's epochs fit into `seconds` on this machine, at least `fewest`.

    Args:
        arch: the backbone.
        pictures: number of pictures in all splits.
        seconds: time for training.
        fewest: with fewer epochs it would not learn.
    """
    recipe = PRESETS[Preset.DEMO]
    if torch.cuda.is_available():
        return Pace(None, recipe.epochs, recipe.epochs)
    pace = images_per_second(arch, recipe)
    epochs = math.floor(seconds * pace / (pictures * (TRAIN_SHARE + VALID_SHARE * VALIDATION_COST)))
    return Pace(pace, min(recipe.epochs, max(fewest, epochs)), recipe.epochs)


def images_per_second(arch: str, recipe: Recipe) -> float:
    """Return the images/s of a training step on the CPU, on random images."""
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
