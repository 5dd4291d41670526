"""What a training step optimizes: the labels, or also a teacher's scores and maps, or one map after another."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn
from torch.nn import functional

from train.learning.dataset import FaceDataset
from train.learning.distillation import Stage, Teacher, spread_stages
from train.learning.recipes import Recipe
from train.models.checkpoint import load_checkpoint, load_model
from train.models.network import normalize

MEASURED_FACES = 256
"""Training faces on which the scales of a teacher's maps are measured."""


class Labels:
    """Cross-entropy with the labels. Both classes weigh the same, however many faces an epoch draws of each.

    Attributes:
        hints: further modules that learn with the network; empty here.
        stages: the stride of the map that each of the first epochs learns; empty here.
        teacher_sha256: that of the teacher; empty here.
    """

    teacher_sha256 = ""

    _bare: nn.ModuleDict | None = None
    """The hints under the same names in one process and in several; None without a teacher."""

    def __init__(self, counts: Sequence[int], recipe: Recipe, accelerator: Accelerator) -> None:
        weights = sum(counts) / (len(counts) * torch.tensor(counts, dtype=torch.float32))
        self.weights = weights.to(accelerator.device)
        self.recipe, self.accelerator = recipe, accelerator
        self.hints = nn.ModuleDict()
        self.stages: tuple[int, ...] = ()

    def begin(self, network: nn.Module, epoch: int, resumed: bool) -> nn.Module:
        """Begin an epoch, counted from 0, and return the module that a step runs, in training mode.

        `resumed` says that some of the epoch's steps are done already.
        """
        return network.train()

    def stride(self, epoch: int) -> int | None:
        """Return the stride of the map that `epoch` learns; None where it learns to judge faces."""
        return self.stages[epoch] if epoch < len(self.stages) else None

    def loss(self, images: torch.Tensor, output: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the loss of a step on normalized images [N, 3, H, W] and labels [N].

        `output` is what the module from `begin` returned for them.
        """
        losses = functional.cross_entropy(
            output.float(), labels, self.weights, label_smoothing=self.recipe.smoothing, reduction="none"
        )
        # A mean over faces, not over weights: the halves of a batch in two processes add up to the whole.
        return losses.mean()

    def state(self) -> dict[str, torch.Tensor] | None:
        """Return what a resumed run needs of the objective, if anything."""
        return None if self._bare is None else self._bare.state_dict()

    def load_state(self, state: Mapping[str, torch.Tensor] | None) -> None:
        """Restore what `state` returned."""
        if self._bare is not None:
            self._bare.load_state_dict(state or {})


class Distilled(Labels):
    """The labels, and a teacher's softened scores and feature maps."""

    def __init__(self, counts: Sequence[int], recipe: Recipe, accelerator: Accelerator, teacher: Teacher) -> None:
        super().__init__(counts, recipe, accelerator)
        self.teacher, self.teacher_sha256 = teacher, teacher.sha256
        self.hints = teacher.hints
        for name, hint in self.hints.items():
            self.hints[name] = accelerator.prepare(hint)
        self._bare = nn.ModuleDict({name: accelerator.unwrap_model(hint) for name, hint in self.hints.items()})

    def loss(self, images: torch.Tensor, output: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the weighted sum of the three; `output` are the student's logits [N, 2]."""
        with self.accelerator.autocast():
            soft, maps = self.teacher.losses(images, output)
        share = self.recipe.distilled
        return (1 - share) * super().loss(images, output, labels) + share * soft + self.recipe.hinted * maps


class MapByMap(Distilled):
    """A teacher's maps alone, one after another from the bottom up; afterwards `Distilled` on all layers.

    `student` is the network before `Accelerator.prepare`; `stages` are the strides that the first epochs learn,
    ascending.
    """

    def __init__(
        self,
        counts: Sequence[int],
        recipe: Recipe,
        accelerator: Accelerator,
        teacher: Teacher,
        student: nn.Module,
        stages: tuple[int, ...],
    ) -> None:
        super().__init__(counts, recipe, accelerator, teacher)
        self.student, self.stages = student, stages
        self._stage: Stage | None = None

    def begin(self, network: nn.Module, epoch: int, resumed: bool) -> nn.Module:
        """Begin an epoch: return the student up to this stage's map, or the whole network after the stages."""
        stride = self.stride(epoch)
        if stride is not None:
            if self._stage is None or self._stage.stride != stride:
                learned = max((earlier for earlier in self.stages if earlier < stride), default=None)
                self._stage = Stage(self.teacher, self.student, stride, learned, self.accelerator)
            return self._stage.begin()
        if self._stage:
            self.student.requires_grad_(True)
            self._stage = None
        # The hint of a map that had no stage has learned nothing yet.
        if epoch == len(self.stages) and not resumed and self.stages[-1] == self.teacher.strides[-1]:
            self.teacher.begin_head(self.student)
        return super().begin(network, epoch, resumed)

    def loss(self, images: torch.Tensor, output: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the loss of this epoch's stage, whose map `output` is, or that of `Distilled` after the stages."""
        return self._stage.loss(images, output) if self._stage else super().loss(images, output, labels)


def load_teacher(path: Path, student: nn.Module, dataset: FaceDataset, recipe: Recipe, device: torch.device) -> Teacher:
    """Load a teacher and measure its maps on faces of `dataset` without augmentation, the same in every process."""
    contract = dataset.contract
    checkpoint = load_checkpoint(path)
    network = load_model(checkpoint).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    teacher = Teacher(network, student, contract.input_size, recipe.teacher_temperature, checkpoint.network_sha256)
    if teacher.strides:
        faces = FaceDataset(dataset.records, contract, {}, seed=recipe.seed)
        count = min(MEASURED_FACES, len(faces))
        pixels = torch.stack([faces[key * len(faces) // count][0] for key in range(count)])
        teacher.measure(normalize(part.to(device), contract) for part in pixels.split(16))
    return teacher


def build_objective(
    counts: Sequence[int], recipe: Recipe, accelerator: Accelerator, teacher: Teacher | None, student: nn.Module
) -> Labels:
    """Return the objective of a run: `MapByMap` for a staged recipe, `Distilled` with a teacher, else `Labels`."""
    if teacher is None:
        return Labels(counts, recipe, accelerator)
    epochs = min(round(recipe.staged * recipe.epochs), recipe.epochs - 1)
    if stages := spread_stages(teacher.strides, epochs):
        return MapByMap(counts, recipe, accelerator, teacher, student, stages)
    return Distilled(counts, recipe, accelerator, teacher)
