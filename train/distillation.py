"""Learning from a teacher: its softened scores and, where both networks are convolutional, its maps of features.

Scores alone say little of a face; a map says what is seen at each place of it, which is what a network without
pretrained weights lacks most. It learns it fastest from the bottom up: the layers to one map at a time.
"""

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

    Attributes:
        hints: what turns a map of the student into one of the teacher, by stride: convolutions of 1×1 that learn with
            the student and are needed no more afterwards. Empty where the two have no stride in common.
    """

    def __init__(self, network: nn.Module, student: nn.Module, size: int) -> None:
        self.network = network.eval().requires_grad_(False)
        self._taught, self._learnt = FeatureMaps(network), FeatureMaps(student)
        self.hints = nn.ModuleDict(self._match(student, size))

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

    def student_part(self, student: nn.Module, stride: int, hint: nn.Module, learnt: int | None = None) -> Part:
        """Return the student as far as its map of `stride` and the guess at its teacher's.

        What leads to the map of stride `learnt` is left as it is: of the student, the layers between the two learn.
        """
        student.requires_grad_(False)
        part = Part(student, self._learnt.names[stride], hint)
        part.requires_grad_(True)
        if learnt is not None:
            Part(student, self._learnt.names[learnt]).requires_grad_(False)
        return part

    def losses(
        self, images: torch.Tensor, logits: torch.Tensor, temperature: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return how far the student is from its teacher on `images`, which it has just judged.

        Args:
            images: float [N, 3, H, W], normalized.
            logits: the student's, [N, 2].
            temperature: what softens both scores.

        Returns:
            The divergence of the softened scores times the square of the temperature (Hinton et al. 2015), and the mean
            squared difference of the maps, each channel of the teacher's at mean 0 and variance 1 (Romero et al. 2015).
        """
        with torch.no_grad():
            taught = self.network(images).float()
        soft = functional.kl_div(
            functional.log_softmax(logits.float() / temperature, 1),
            functional.log_softmax(taught / temperature, 1),
            reduction="batchmean",
            log_target=True,
        )
        return temperature**2 * soft, self._difference(logits)

    def _difference(self, logits: torch.Tensor) -> torch.Tensor:
        taught, learnt = self._taught.found, self._learnt.found
        pairs = [(hint(learnt[int(stride)]), taught[int(stride)]) for stride, hint in self.hints.items()]
        differences = [difference(guessed, right) for guessed, right in pairs]
        return torch.stack(differences).mean() if differences else logits.new_zeros(())


def difference(guessed: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return the mean squared difference of maps [N, C, H, W], each channel of the right at mean 0 and variance 1."""
    return functional.mse_loss(guessed.float(), _standard(right))


def _standard(maps: torch.Tensor) -> torch.Tensor:
    return functional.batch_norm(maps.float(), None, None, training=True)


@dataclass
class Stage:
    """A part of a training in which a student's lower layers learn one map of its teacher's.

    Attributes:
        stride: pixels of the input to one place of the map.
        student: the student as far as its guess at the map.
        teacher: the teacher as far as the map.
        accelerator: what computes both.
    """

    stride: int
    student: nn.Module
    teacher: Part
    accelerator: Accelerator

    def loss(self, images: torch.Tensor) -> torch.Tensor:
        """Return how far the student's guess is from its teacher's map of `images` [N, 3, H, W]."""
        guessed = self.student(images)
        with torch.no_grad(), self.accelerator.autocast():
            right = self.teacher(images)
        return difference(guessed, right)
