"""The one tiny network of the tests, and its place among the backbones."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import nn

from train.models.backbones import BACKBONES, Backbone

SIDE = 32
"""Pixels a side of its input."""


class TinyNet(nn.Module):
    """Three convolutions, pooling and `fc`: a ResNet in small."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*_block(3, 8), *_block(8, 16), *_block(16, 16))
        self.fc = nn.Linear(16, classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.fc(self.body(image).mean((2, 3)))


def _block(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return (nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


@contextmanager
def tiny_registered() -> Iterator[Backbone]:
    """Make `--arch tiny` known within the block."""
    backbone = Backbone("tiny", TinyNet, None, "fc", "body", SIDE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "tiny", backbone)
        yield backbone
