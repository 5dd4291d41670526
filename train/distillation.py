"""Learning from a teacher: its softened scores and, where both networks are convolutional, its maps of features.

Scores alone say little of a face; a map says what is seen at each place of it, which is what a network without
pretrained weights lacks most.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional

STRIDES = (8, 16, 32)
"""Pixels of the input to one place of a map, of the maps that are compared."""


class FeatureMaps:
    """The widest map of features of each stride, gathered whenever `network` runs; of equally wide ones the last.

    Attributes:
        found: float [N, C, H, W] of the last run, by stride.
    """

    def __init__(self, network: nn.Module) -> None:
        self.found: dict[int, torch.Tensor] = {}
        self._width = 0
        network.register_forward_pre_hook(self._begin)
        for layer in network.modules():
            layer.register_forward_hook(self._keep)

    def _begin(self, network: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        self.found.clear()
        self._width = inputs[0].shape[-1]

    def _keep(self, layer: nn.Module, inputs: Any, output: Any) -> None:
        if not isinstance(output, torch.Tensor) or output.ndim != 4:
            return
        stride = self._width // output.shape[-1]
        before = self.found.get(stride)
        if stride in STRIDES and (before is None or output.shape[1] >= before.shape[1]):
            self.found[stride] = output


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
        return {
            str(stride): nn.Conv2d(learnt[stride].shape[1], taught[stride].shape[1], 1, device=device)
            for stride in common
        }

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
        differences = [functional.mse_loss(guessed.float(), _standard(right)) for guessed, right in pairs]
        return torch.stack(differences).mean() if differences else logits.new_zeros(())


def _standard(maps: torch.Tensor) -> torch.Tensor:
    return functional.batch_norm(maps.float(), None, None, training=True)
