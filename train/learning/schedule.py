"""How high the learning rate is at each step: once up and down, or once in each stage."""

import math
from collections.abc import Sequence
from itertools import pairwise

from train.learning.recipes import Recipe

TOGETHER = 0.04
"""Share of the learning rate at which all layers learn after stages: at a tenth they still unlearn at once what the
stages taught (measured: docs/results/training.md)."""


class Schedule:
    """The learning rate of a training.

    Args:
        recipe: how it begins, how high it gets, how it falls.
        steps: of an epoch.
        stages: what each of the first epochs is about; equal ones are one stage.
    """

    def __init__(self, recipe: Recipe, steps: int, stages: Sequence[int]) -> None:
        self._recipe = recipe
        firsts = [epoch for epoch, stride in enumerate(stages) if stride not in stages[:epoch]]
        self._bounds = [steps * epoch for epoch in (*firsts, len(stages), recipe.epochs)]
        self.together = steps * len(stages)
        """The first step in which all layers learn."""

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of `step`."""
        recipe = self._recipe
        if recipe.schedule == "constant":
            return recipe.learning_rate
        first, end = next((first, end) for first, end in pairwise(self._bounds) if step < end)
        highest = recipe.learning_rate * (TOGETHER if first and first == self.together else 1.0)
        step, whole = step - first, end - first
        warm = max(1, round(recipe.warm_up * whole))
        if step < warm:
            return highest * (step + 1) / warm
        return highest * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, whole - warm)))
