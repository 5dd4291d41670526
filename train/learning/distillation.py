"""Learning from a teacher: its softened scores and, where both networks are convolutional, its maps of features.

Scores alone say little of a face; a map says what is seen at each place of it, which is what a network without
pretrained weights lacks most. It learns it fastest from the bottom up: the layers to one map at a time.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from torch.nn import functional
from torchvision.models.feature_extraction import create_feature_extractor

STRIDES = (4, 8, 16, 32)
"""Pixels of the input to one place of a map, of the maps that are compared."""

LEAST_VARIANCE = 0.25
"""Variance of a channel of a map that a scale takes at least, in mean variances of its channels: one that is hardly
ever above zero would count a thousandfold where it is (measured: docs/results/training.md)."""


class FeatureMaps:
    """The widest map of features of each stride, gathered whenever `network` runs; of equally wide ones the last.

    Attributes:
        found: float [N, C, H, W] of the last run, by stride.
        names: the layers that they come from, by stride.
    """

    def __init__(self, network: nn.Module) -> None:
        self.found: dict[int, torch.Tensor] = {}
        self.names: dict[int, str] = {}
        self._width = 0
        network.register_forward_pre_hook(self._begin)
        for name, layer in network.named_modules():
            layer.register_forward_hook(partial(self._keep, name))
        network.register_forward_hook(self._end)

    def _begin(self, network: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        self.found.clear()
        self._width = inputs[0].shape[-1]

    def _end(self, network: nn.Module, inputs: Any, output: Any) -> None:
        self._width = 0  # What runs a part of the network alone is not followed.

    def _keep(self, name: str, layer: nn.Module, inputs: Any, output: Any) -> None:
        if not self._width or not isinstance(output, torch.Tensor) or output.ndim != 4:
            return
        stride = self._width // output.shape[-1]
        before = self.found.get(stride)
        if stride in STRIDES and (before is None or output.shape[1] >= before.shape[1]):
            self.found[stride], self.names[stride] = output, name


class Part(nn.Module):
    """A network as far as the layer called `name`, followed by `hint`; it shares the network's weights."""

    def __init__(self, network: nn.Module, name: str, hint: nn.Module | None = None) -> None:
        super().__init__()
        self.part = create_feature_extractor(network, {name: "map"})
        self.hint = hint or nn.Identity()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images [N, 3, H, W] to the map [N, C, H / stride, W / stride]."""
        found: torch.Tensor = self.hint(self.part(images)["map"])
        return found


class Teacher:
    """A trained network that a student learns from.

    Args:
        network: the teacher, on the device of the student; it is frozen.
        student: the network that learns; its maps are gathered from now on.
        size: pixels a side of the pictures that both see.
        temperature: what softens the scores of both.

    Attributes:
        hints: what turns a map of the student into one of the teacher, by stride: convolutions of 1×1 that learn with
            the student and are needed no more afterwards. Empty where the two have no stride in common.
        scales: what brings each channel of the teacher's maps to mean 0 and variance 1 (less where it hardly varies),
            by stride; set by `measure`.
    """

    def __init__(self, network: nn.Module, student: nn.Module, size: int, temperature: float) -> None:
        self.network = network.eval().requires_grad_(False)
        self._taught, self._learnt = FeatureMaps(network), FeatureMaps(student)
        self._size, self._temperature = size, temperature
        self.hints = nn.ModuleDict(self._match(student, size))
        self.scales: dict[int, Scale] = {}

    @torch.no_grad()
    def measure(self, batches: Iterable[torch.Tensor]) -> None:
        """Measure the scales of the teacher's maps on images [N, 3, H, W] of every batch, the same for all training.

        A scale drawn from each step's own batch would be another in every step, the more so the smaller the batch.
        """
        sums: dict[int, list[torch.Tensor]] = {stride: [] for stride in self.strides}
        faces = 0
        for images in batches:
            self.network(images)
            faces += len(images)
            for stride, found in sums.items():
                maps = self._taught.found[stride].float()
                found.append(torch.stack([maps.mean((2, 3)).sum(0), maps.square().mean((2, 3)).sum(0)]))
        for stride, found in sums.items():
            mean, square = torch.stack(found).sum(0) / faces
            variance = (square - mean.square()).clamp(min=0)
            least = (LEAST_VARIANCE * variance.mean()).clamp(min=1e-5)
            self.scales[stride] = Scale(mean, torch.maximum(variance, least).sqrt())

    def _match(self, student: nn.Module, size: int) -> dict[str, nn.Module]:
        device = next(student.parameters()).device
        training = student.training
        with torch.no_grad():
            for network in (self.network, student.eval()):
                network(torch.zeros(1, 3, size, size, device=device))
        student.train(training)
        taught, learnt = self._taught.found, self._learnt.found
        common = sorted(taught.keys() & learnt.keys())
        hints = {
            str(stride): nn.Conv2d(learnt[stride].shape[1], taught[stride].shape[1], 1, device=device)
            for stride in common
        }
        for hint in hints.values():  # A wrong guess at the start would only have to be unlearnt.
            nn.init.zeros_(hint.weight)
            nn.init.zeros_(hint.bias)  # type: ignore[arg-type]
        return dict(hints)

    @property
    def strides(self) -> tuple[int, ...]:
        """The strides of the maps that both networks have, ascending."""
        return tuple(int(stride) for stride in self.hints)

    def stages(self, epochs: int) -> tuple[int, ...]:
        """Return the stride whose map is learnt in each of `epochs` epochs, ascending; none without common strides."""
        strides = self.strides
        return tuple(strides[epoch * len(strides) // epochs] for epoch in range(epochs)) if strides else ()

    def part(self, stride: int) -> Part:
        """Return the teacher as far as its map of `stride`."""
        return Part(self.network, self._taught.names[stride]).eval()

    def stage(self, student: nn.Module, stride: int, learnt: int | None, accelerator: Accelerator) -> "Stage":
        """Return the stage in which the student learns the map of `stride`.

        What leads to the map of stride `learnt` is left as it is, its batch statistics too: of the student, the layers
        between the two learn.
        """
        student.requires_grad_(False)
        part = Part(student, self._learnt.names[stride], accelerator.unwrap_model(self.hints[str(stride)]))
        part.requires_grad_(True)
        fixed = Part(student, self._learnt.names[learnt]).requires_grad_(False) if learnt else None
        return Stage(
            stride,
            accelerator.prepare(part),
            fixed,
            self.part(stride),
            self.scales[stride],
            _linear_head(self.network, self._taught, stride, self._size),
            self._temperature,
            accelerator,
        )

    @torch.no_grad()
    def begin_head(self, student: nn.Module) -> bool:
        """Let the student judge as its teacher would by the student's guess at its last map; True where that can be.

        Where both networks end in the mean of a map and a linear layer, the teacher's layer, its scale of the map and
        the hint are one linear layer together. Whether they do is tried on noise.
        """
        stride = max(self.strides, default=0)
        taught = _linear_head(self.network, self._taught, stride, self._size)
        learnt = _linear_head(student, self._learnt, stride, self._size)
        if taught is None or learnt is None:
            return False
        hint, bias = self.hints[str(stride)].parameters()
        scale = self.scales[stride]
        weight = taught.weight * scale.deviation
        learnt.weight.copy_(weight @ hint.flatten(1))
        learnt.bias.copy_(weight @ bias + taught(scale.mean))
        return True

    def losses(self, images: torch.Tensor, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return how far the student is from its teacher on `images`, which it has just judged.

        Args:
            images: float [N, 3, H, W], normalized.
            logits: the student's, [N, 2].

        Returns:
            The divergence of the softened scores, and the mean squared difference of the maps, the teacher's on their
            scales (after Romero et al. 2015).
        """
        with torch.no_grad():
            taught = self.network(images)
        return divergence(logits, taught, self._temperature), self._difference(logits)

    def _difference(self, logits: torch.Tensor) -> torch.Tensor:
        taught, learnt = self._taught.found, self._learnt.found
        differences = [
            self.scales[stride].difference(self.hints[str(stride)](learnt[stride]), taught[stride])
            for stride in self.strides
        ]
        return torch.stack(differences).mean() if differences else logits.new_zeros(())


def divergence(logits: torch.Tensor, taught: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return how far `logits` [N, 2] are from a teacher's: the divergence of the scores, both softened by
    `temperature`, times its square (Hinton et al. 2015).
    """
    soft = functional.kl_div(
        functional.log_softmax(logits.float() / temperature, 1),
        functional.log_softmax(taught.float() / temperature, 1),
        reduction="batchmean",
        log_target=True,
    )
    return temperature**2 * soft


@dataclass(frozen=True)
class Scale:
    """The scale of a map: each channel's mean, and its standard deviation or the least that is taken; [C] both."""

    mean: torch.Tensor
    deviation: torch.Tensor

    def difference(self, guessed: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """Return the mean squared difference of a guess to the right maps [N, C, H, W], these on this scale."""
        standard = (right.float() - self.mean[:, None, None]) / self.deviation[:, None, None]
        return functional.mse_loss(guessed.float(), standard)

    def restored(self, guessed: torch.Tensor) -> torch.Tensor:
        """Return the maps [N, C, H, W] that are `guessed` on this scale."""
        return guessed.float() * self.deviation[:, None, None] + self.mean[:, None, None]


def _linear_head(network: nn.Module, maps: FeatureMaps, stride: int, size: int) -> nn.Linear | None:
    """Return the layer by which `network` judges the mean of its map of `stride`, if that is all it judges by."""
    head = next((layer for layer in [*network.modules()][::-1] if isinstance(layer, nn.Linear)), None)
    training = network.training
    noise = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    logits = network.eval()(noise.to(next(network.parameters()).device)).float()
    network.train(training)
    means = maps.found[stride].float().mean((2, 3)) if stride in maps.found else None
    if head is None or means is None or head.in_features != means.shape[1]:
        return None
    wrong, judged = (head(means) - logits).abs().max(), (logits - head.bias).abs().max()
    return head if wrong < 0.05 * judged else None  # Half precision is wrong by some hundredths.


@dataclass
class Stage:
    """A part of a training in which a student's lower layers learn one map of its teacher's.

    Attributes:
        stride: pixels of the input to one place of the map.
        student: the student as far as its guess at the map.
        fixed: what of it has learnt in an earlier stage.
        teacher: the teacher as far as the map.
        scale: of the map.
        head: the layer by which the teacher judges the mean of the map, if it does.
        temperature: what softens the scores of both.
        accelerator: what computes both.
    """

    stride: int
    student: nn.Module
    fixed: nn.Module | None
    teacher: Part
    scale: Scale
    head: nn.Linear | None
    temperature: float
    accelerator: Accelerator

    def train(self) -> None:
        """Let the layers take their statistics from each batch that are to learn, and no others."""
        self.student.train()
        if self.fixed is not None:
            self.fixed.eval()

    def loss(self, images: torch.Tensor) -> torch.Tensor:
        """Return how far the student's guess is from its teacher's map of `images` [N, 3, H, W].

        Of the map that the teacher judges by, what it says of both counts as well.
        """
        guessed = self.student(images)
        with torch.no_grad(), self.accelerator.autocast():
            right = self.teacher(images)
        difference = self.scale.difference(guessed, right)
        if self.head is None:
            return difference
        learnt, taught = (self.head(maps.float().mean((2, 3))) for maps in (self.scale.restored(guessed), right))
        return difference + divergence(learnt, taught, self.temperature)
