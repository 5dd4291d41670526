"""Measures how fast this machine trains, to choose the demo's number of epochs."""

import math
from dataclasses import dataclass

import torch

from train.choices import Preset
from train.learning.pace import VALIDATION_COST, images_per_second
from train.learning.recipes import PRESETS

TRAIN_SHARE, VALID_SHARE = 0.7, 0.15
"""Shares of the pictures that an epoch trains and validates on."""


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
