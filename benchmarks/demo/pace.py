"""Measures how fast this machine trains, to choose the demo's number of epochs."""

import math
from dataclasses import dataclass

import torch

from train.choices import Preset
from train.data.catalog import SHARES
from train.data.splits import Share
from train.learning.pace import VALIDATION_COST, images_per_second
from train.learning.recipes import PRESETS


@dataclass(frozen=True)
class Pace:
    """How many epochs of the recipe's `most` a machine has time for; on a GPU its speed does not matter (None)."""

    images_per_second: float | None
    epochs: int
    most: int

    def __str__(self) -> str:
        if self.images_per_second is None:
            return f"This machine trains on a GPU: {self.epochs} epochs."
        return f"This machine trains on {self.images_per_second:.0f} images/s: {self.epochs} of {self.most} epochs."


def choose_epochs(arch: str, pictures: int, seconds: float, fewest: int) -> Pace:
    """Return how many of the demo's epochs fit into `seconds` on this machine, at least `fewest`.

    `pictures` are those of all splits.
    """
    recipe = PRESETS[Preset.DEMO]
    if torch.cuda.is_available():
        return Pace(None, recipe.epochs, recipe.epochs)
    pace = images_per_second(arch, recipe)
    share = Share.parse(SHARES)
    epochs = math.floor(seconds * pace / (pictures * (share.train + share.valid * VALIDATION_COST)))
    return Pace(pace, min(recipe.epochs, max(fewest, epochs)), recipe.epochs)
