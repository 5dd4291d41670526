"""The optimizer of a run, its learning rate by step, the running average of its weights, and the steps' precision."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from train.choices import StepPrecision, TrainingDevice
from train.learning.recipes import Recipe

TOGETHER = 0.04
"""After the stages all layers learn at this share of the recipe's learning rate. At a tenth they undo the stages at
once (docs/results/training.md)."""


def build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return the recipe's optimizer; biases and normalization layers have no weight decay."""
    if recipe.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), recipe.learning_rate)
    decayed = [weight for weight in model.parameters() if weight.ndim > 1]
    others = [weight for weight in model.parameters() if weight.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, recipe.learning_rate)


def running_average(model: nn.Module, decay: float) -> AveragedModel:
    """Return an exponential average of weights and batch statistics; the decay warms up, for short runs."""

    @torch.no_grad()
    def update(averages: Any, values: Any, count: Any) -> None:
        share = 1.0 - min(decay, (1.0 + float(count)) / (10.0 + float(count)))
        if torch.is_floating_point(averages[0]):
            torch._foreach_lerp_(averages, values, share)
        else:
            torch._foreach_copy_(averages, values)

    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)


def training_precision(wanted: StepPrecision, device: TrainingDevice, model: nn.Module) -> str:
    """Return the precision of a step as Accelerate names it: what is wanted, or for `auto` the fastest.

    Measured on a CPU: bf16 halves the time of ResNet-50 and doubles that of networks with depthwise convolutions.
    """
    if wanted != StepPrecision.AUTO:
        return StepPrecision(wanted).value
    if torch.cuda.is_available() and device != TrainingDevice.CPU:
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    depthwise = any(isinstance(layer, nn.Conv2d) and layer.groups > 1 for layer in model.modules())
    return "bf16" if native and not depthwise else "no"


class Schedule:
    """The learning rate of a run: up and down once, or once in each stage of a staged recipe.

    `steps` is the number per epoch; `stages` are the strides that the first epochs learn, equal ones being one stage.
    All layers learn from step `together` on.
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
