"""How fast a machine trains."""

import statistics
import time

import torch
from torch.nn import functional

from train.choices import StepPrecision, TrainingDevice
from train.learning.optimizer import training_precision
from train.learning.recipes import Recipe
from train.models.backbones import CLASSES, build_backbone
from train.models.network import keep_memory

WARM_UP_STEPS, STEPS = 1, 4
ENOUGH_S = 15.0
"""After this long no further step is measured: on so slow a machine the steps so far are enough."""

VALIDATION_COST = 1 / 3
"""Time to validate on a picture, relative to training on it: forward against forward and backward."""


def images_per_second(arch: str, recipe: Recipe, *, device: str = "cpu", steps: int = STEPS) -> float:
    """Return the images/s of a training step of `arch` without a teacher, on random images."""
    if device == "cpu":
        keep_memory()
    model = build_backbone(arch).to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(model.parameters(), recipe.learning_rate)
    wanted = TrainingDevice.CPU if device == "cpu" else TrainingDevice.AUTO
    precision = training_precision(StepPrecision.AUTO, wanted, model)
    side = recipe.input_size or 224
    images = torch.randn(recipe.batch, 3, side, side, device=device).to(memory_format=torch.channels_last)
    labels = torch.arange(recipe.batch, device=device) % CLASSES
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    seconds: list[float] = []
    while len(seconds) < WARM_UP_STEPS + steps and not (len(seconds) > WARM_UP_STEPS and sum(seconds) > ENOUGH_S):
        began = time.perf_counter()
        with torch.autocast(device, dtype, enabled=precision != "no"):
            loss = functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if device != "cpu":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return recipe.batch / statistics.median(seconds[WARM_UP_STEPS:])
