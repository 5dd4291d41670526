"""Learning from a teacher: its softened scores and, where both networks are convolutional, its feature maps.

A score says little about a face. A feature map says what is at each place of it, which is what a network without
pretrained weights lacks most. It is learned fastest from the bottom up, one map at a time.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from torch.nn import functional
from torchvision.models.feature_extraction import create_feature_extractor

from train.distributed import SharedBatchNorm

STRIDES = (4, 8, 16, 32)
"""Input pixels per place of a map, for the maps that are compared."""

LEAST_VARIANCE = 0.25
"""Lower bound of a channel's variance when a map is scaled, as a share of the mean variance of its channels. Without
it, a channel that is almost always zero would count a thousandfold where it is not (docs/results/training.md)."""


class FeatureMaps:
    """Records the widest feature map of each stride whenever `network` runs; among equally wide ones, the last.

    By stride, `found` has the maps [N, C, H, W] of the last run and `names` the layers that they come from.
    """

    def __init__(self, network: nn.Module) -> None:
        self.found: dict[int, torch.Tensor] = {}
        self.names: dict[int, str] = {}
        self._input_width = 0

        def begin(network: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            self.found.clear()
            self._input_width = inputs[0].shape[-1]

        def end(network: nn.Module, inputs: Any, output: Any) -> None:
            self._input_width = 0  # Ignore layers that run outside a run of the whole network.

        network.register_forward_pre_hook(begin)
        for name, layer in network.named_modules():
            layer.register_forward_hook(partial(self._record, name))
        network.register_forward_hook(end)

    def _record(self, name: str, layer: nn.Module, inputs: Any, output: Any) -> None:
        if not self._input_width or not isinstance(output, torch.Tensor) or output.ndim != 4:
            return
        stride = self._input_width // output.shape[-1]
        before = self.found.get(stride)
        if stride in STRIDES and (before is None or output.shape[1] >= before.shape[1]):
            self.found[stride], self.names[stride] = output, name


class Part(nn.Module):
    """A network up to the layer called `name`, followed by `hint`. It shares the network's weights."""

    def __init__(self, network: nn.Module, name: str, hint: nn.Module | None = None) -> None:
        super().__init__()
        whole = {"leaf_modules": [SharedBatchNorm]}
        self.part = create_feature_extractor(network, {name: "map"}, tracer_kwargs=whole)
        self.hint = hint or nn.Identity()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images [N, 3, H, W] to the map [N, C, H / stride, W / stride]."""
        found: torch.Tensor = self.hint(self.part(images)["map"])
        return found


@dataclass(frozen=True)
class Scale:
    """Per channel [C], the mean of a map and its standard deviation, the latter bounded by LEAST_VARIANCE."""

    mean: torch.Tensor
    deviation: torch.Tensor

    def difference(self, guess: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the mean squared difference between a guess on this scale and its target maps [N, C, H, W]."""
        standard = (target.float() - self.mean[:, None, None]) / self.deviation[:, None, None]
        return functional.mse_loss(guess.float(), standard)

    def restored(self, guess: torch.Tensor) -> torch.Tensor:
        """Return a guess made on this scale as maps [N, C, H, W]."""
        return guess.float() * self.deviation[:, None, None] + self.mean[:, None, None]


class Teacher:
    """A trained network, frozen, that a student on the same device learns from.

    Args:
        network: the teacher.
        student: the network that learns. Its feature maps are recorded from now on.
        size: pixels a side of the images that both see.
        temperature: divides the logits of both (Hinton et al. 2015).
        sha256: the teacher's `Checkpoint.network_sha256`; empty where unknown.

    Attributes:
        hints: by stride, the 1×1 convolution that turns the student's map into the teacher's (Romero et al. 2015). They
            learn with the student and are dropped afterwards. Empty where the two have no stride in common.
        scales: by stride, what brings each channel of the teacher's map to mean 0 and variance 1; set by `measure`.
    """

    def __init__(self, network: nn.Module, student: nn.Module, size: int, temperature: float, sha256: str = "") -> None:
        self.sha256 = sha256
        self.network = network.eval().requires_grad_(False)
        self.teacher_maps, self.student_maps = FeatureMaps(network), FeatureMaps(student)
        self.scales: dict[int, Scale] = {}
        self.temperature = temperature
        self._size = size
        device, training = next(student.parameters()).device, student.training
        with torch.no_grad():
            for model in (self.network, student.eval()):
                model(torch.zeros(1, 3, size, size, device=device))
        student.train(training)
        taught, learned = self.teacher_maps.found, self.student_maps.found
        self.hints = nn.ModuleDict()
        for stride in sorted(taught.keys() & learned.keys()):
            hint = nn.Conv2d(learned[stride].shape[1], taught[stride].shape[1], 1, device=device)
            # Start from no guess: a random one would have to be unlearned first.
            nn.init.zeros_(hint.weight)
            nn.init.zeros_(hint.bias)  # type: ignore[arg-type]
            self.hints[str(stride)] = hint

    @torch.no_grad()
    def measure(self, batches: Iterable[torch.Tensor]) -> None:
        """Measure the scales of the teacher's maps on images [N, 3, H, W], once for the whole training.

        A scale of each step's own batch would differ from step to step, the more so the smaller the batch.
        """
        sums: dict[int, list[torch.Tensor]] = {stride: [] for stride in self.strides}
        faces = 0
        for images in batches:
            self.network(images)
            faces += len(images)
            for stride, found in sums.items():
                maps = self.teacher_maps.found[stride].float()
                found.append(torch.stack([maps.mean((2, 3)).sum(0), maps.square().mean((2, 3)).sum(0)]))
        for stride, found in sums.items():
            mean, square = torch.stack(found).sum(0) / faces
            variance = (square - mean.square()).clamp(min=0)
            least = (LEAST_VARIANCE * variance.mean()).clamp(min=1e-5)
            self.scales[stride] = Scale(mean, torch.maximum(variance, least).sqrt())

    @property
    def strides(self) -> tuple[int, ...]:
        """The strides of the maps that both networks have, ascending."""
        return tuple(int(stride) for stride in self.hints)

    @torch.no_grad()
    def begin_head(self, student: nn.Module) -> bool:
        """Set the student's head so that it judges its guess at the last map as the teacher would.

        Where both networks end in a linear layer on the mean of that map, the hint, the scale and the teacher's layer
        are together one linear layer. Return False, and change nothing, where either network does not.
        """
        stride = max(self.strides, default=0)
        taught = self.linear_head(self.network, self.teacher_maps, stride)
        learned = self.linear_head(student, self.student_maps, stride)
        if taught is None or learned is None:
            return False
        hint, bias = self.hints[str(stride)].parameters()
        scale = self.scales[stride]
        weight = taught.weight * scale.deviation
        learned.weight.copy_(weight @ hint.flatten(1))
        learned.bias.copy_(weight @ bias + taught(scale.mean))
        return True

    def linear_head(self, network: nn.Module, maps: FeatureMaps, stride: int) -> nn.Linear | None:
        """Return the linear layer on the mean of the map of `stride`, if `network` ends in one; tried on noise."""
        head = next((layer for layer in [*network.modules()][::-1] if isinstance(layer, nn.Linear)), None)
        training = network.training
        noise = torch.randn(2, 3, self._size, self._size, generator=torch.Generator().manual_seed(0))
        logits = network.eval()(noise.to(next(network.parameters()).device)).float()
        network.train(training)
        means = maps.found[stride].float().mean((2, 3)) if stride in maps.found else None
        if head is None or means is None or head.in_features != means.shape[1]:
            return None
        error, largest = (head(means) - logits).abs().max(), (logits - head.bias).abs().max()
        return head if error < 0.05 * largest else None  # Half precision is off by a few hundredths.

    def losses(self, images: torch.Tensor, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return how far the student is from its teacher on images [N, 3, H, W] that it has just judged.

        The two losses are the divergence of the softened scores, from the student's logits [N, 2], and the mean squared
        difference of the maps on their scales.
        """
        with torch.no_grad():
            taught = self.network(images)
        differences = [
            self.scales[stride].difference(
                self.hints[str(stride)](self.student_maps.found[stride]), self.teacher_maps.found[stride]
            )
            for stride in self.strides
        ]
        maps = torch.stack(differences).mean() if differences else logits.new_zeros(())
        return divergence(logits, taught, self.temperature), maps


def spread_stages(strides: Sequence[int], epochs: int) -> tuple[int, ...]:
    """Return the stride that each of `epochs` epochs learns, in the order of `strides`; empty without strides."""
    return tuple(strides[epoch * len(strides) // epochs] for epoch in range(epochs)) if strides else ()


def divergence(logits: torch.Tensor, taught: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return the Kullback-Leibler divergence of logits [N, 2] from a teacher's, both softened by `temperature`, times
    the temperature squared (Hinton et al. 2015).
    """
    soft = functional.kl_div(
        functional.log_softmax(logits.float() / temperature, 1),
        functional.log_softmax(taught.float() / temperature, 1),
        reduction="batchmean",
        log_target=True,
    )
    return temperature**2 * soft


class Stage:
    """A part of a training in which the layers below one of a teacher's maps learn that map, of stride `stride`.

    The layers up to the map of stride `learned` stay as they are, batch statistics included.
    """

    def __init__(
        self, teacher: Teacher, student: nn.Module, stride: int, learned: int | None, accelerator: Accelerator
    ) -> None:
        student.requires_grad_(False)
        names, hint = teacher.student_maps.names, accelerator.unwrap_model(teacher.hints[str(stride)])
        part = Part(student, names[stride], hint).requires_grad_(True)
        self.fixed = Part(student, names[learned]).requires_grad_(False) if learned else None
        self.student = accelerator.prepare(part)  # with several processes it counts the weights that learn
        self.teacher = Part(teacher.network, teacher.teacher_maps.names[stride]).eval()
        self.head = teacher.linear_head(teacher.network, teacher.teacher_maps, stride)
        self.stride, self.scale, self.temperature = stride, teacher.scales[stride], teacher.temperature
        self.accelerator = accelerator

    def begin(self) -> nn.Module:
        """Return the student part in training mode; its fixed layers keep their batch statistics."""
        self.student.train()
        if self.fixed is not None:
            self.fixed.eval()
        return self.student

    def loss(self, images: torch.Tensor, guess: torch.Tensor) -> torch.Tensor:
        """Return how far `guess`, the student's, is from its teacher's map of `images` [N, 3, H, W].

        On the map that the teacher judges by, the divergence of the scores of both is added.
        """
        with torch.no_grad(), self.accelerator.autocast():
            target = self.teacher(images)
        difference = self.scale.difference(guess, target)
        if self.head is None:
            return difference
        learned, taught = (self.head(maps.float().mean((2, 3))) for maps in (self.scale.restored(guess), target))
        return difference + divergence(learned, taught, self.temperature)
