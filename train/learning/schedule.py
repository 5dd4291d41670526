"""The learning rate of each step: up and down once, or once in each stage of a staged recipe."""

import math
from collections.abc import Sequence
from itertools import pairwise

from train.learning.recipes import Recipe

TOGETHER = 0.04
"""Share of the recipe's learning rate at which all layers learn after the stages. At a tenth they still unlearn at once
what the stages taught (docs/results/training.md)."""


class Schedule:
    """The learning rate of a run.

    Args:
        recipe: the recipe of the run.
        steps: steps per epoch.
        stages: the stride that each of the first epochs learns; equal strides are one stage.

    Attributes:
        together: the first step in which all layers learn.
    """

    def __init__(self, recipe: Recipe, steps: int, stages: Sequence[int]) -> None:
        self._recipe = recipe
        firsts = [epoch for epoch, stride in enumerate(stages) if stride not in stages[:epoch]]
        self._bounds = [steps * epoch for epoch in (*firsts, len(stages), recipe.epochs)]
        self.together = steps * len(stages)

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of `step`: constant, or a cosine after a linear warm-up within its stage."""
        recipe = self._recipe
        if recipe.schedule == "constant":
            return recipe.learning_rate
        first, end = next((first, end) for first, end in pairwise(self._bounds) if step < end)
        highest = recipe.learning_rate * (TOGETHER if first and first == self.together else 1.0)
        step, steps = step - first, end - first
        warm_up = max(1, round(recipe.warm_up * steps))
        if step < warm_up:
            return highest * (step + 1) / warm_up
        return highest * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))
