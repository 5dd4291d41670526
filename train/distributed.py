"""Training in several processes: what they agree on, and batch statistics over all of them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from numpy.typing import NDArray
from torch import distributed, nn

from edge_runtime.errors import EdgeError, UsageError
from train.models.state_dict import first_line

Item = TypeVar("Item")
Number = TypeVar("Number", bound=np.generic)
Value = TypeVar("Value")


def from_main(make: Callable[[], Value]) -> Value:
    """Return what `make` returns in the main process; its EdgeError is raised in every process."""
    state = PartialState()
    if state.num_processes == 1:
        return make()
    found: list[Any] = [None, None]
    if state.is_main_process:
        try:
            found[0] = make()
        except EdgeError as error:
            found[1] = error
    broadcast_object_list(found)
    if found[1]:
        raise found[1]
    value: Value = found[0]
    return value


def highest(value: int) -> int:
    """Return the highest `value` of all processes."""
    state = PartialState()
    if state.num_processes == 1:
        return value
    found = torch.tensor(int(value), device=state.device)
    distributed.all_reduce(found, distributed.ReduceOp.MAX)
    return int(found)


def judged_together(judge: Callable[[Sequence[Item]], NDArray[Number]], items: Sequence[Item]) -> NDArray[Number]:
    """Return `judge(items)`, a row for each, of which each process computes its share."""
    rank, world = PartialState().process_index, PartialState().num_processes
    if world == 1:
        return judge(items)
    parts: list[Any] = [None] * world
    distributed.all_gather_object(parts, judge(items[rank::world]))
    rows = np.empty((len(items), *parts[0].shape[1:]), parts[0].dtype)
    for number, part in enumerate(parts):
        rows[number::world] = part
    return rows


@contextmanager
def lost_peers_reported() -> Iterator[None]:
    """Turn the error that follows the end of another process into one line.

    Raises:
        UsageError: a step failed; what failed is named, since the error of a lost connection has no type of its own.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        state = PartialState()
        if state.num_processes == 1:
            raise
        raise UsageError(
            f"process {state.process_index} of {state.num_processes} can't go on, probably because another one ended "
            f"({first_line(error)}); restart all processes to resume from the last save"
        ) from error


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch normalization by the mean and variance of the batches of all processes, which may differ in size.

    Only where gradients flow. In evaluation, and where `renew_statistics` runs, each process is on its own.
    torch.nn.SyncBatchNorm needs GPUs.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Maps [N, C, H, W] to normalized ones."""
        if not (self.training and torch.is_grad_enabled()):
            return super().forward(input)
        output: torch.Tensor
        output, mean, variance = _Normalized.apply(input, self.weight, self.bias, self.eps)
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
            self.running_var.lerp_(variance.to(self.running_var.dtype), share)
        return output


class _Normalized(torch.autograd.Function):
    """Normalizes maps, and returns them with the mean and the unbiased variance [C]."""

    @staticmethod
    def forward(ctx: Any, maps: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float) -> Any:
        values = maps.to(torch.promote_types(maps.dtype, torch.float32))
        variance, mean = (part.double() for part in torch.var_mean(values, (0, 2, 3), correction=0))
        # Sums of squares lose digits, which doubles have to spare.
        sums = torch.stack([torch.ones_like(mean), mean, variance + mean.square()]) * (values.numel() / len(mean))
        distributed.all_reduce(sums)
        count, (mean, square) = sums[0], sums[1:] / sums[0]
        variance = (square - mean.square()).clamp(min=0)
        inverse = (variance + eps).rsqrt().to(values.dtype)
        normal = (values - mean.to(values.dtype)[:, None, None]) * inverse[:, None, None]
        ctx.save_for_backward(normal, weight, inverse, count)
        output = (normal * weight[:, None, None] + bias[:, None, None]).to(maps.dtype)
        unbiased = variance * count / (count - 1).clamp(min=1)
        ctx.mark_non_differentiable(mean, unbiased)
        return output, mean, unbiased

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor, *_: Any) -> Any:
        normal, weight, inverse, count = ctx.saved_tensors
        values = gradient.to(normal.dtype)
        of_bias, of_weight = values.sum((0, 2, 3)), (values * normal).sum((0, 2, 3))
        sums = torch.stack([of_bias, of_weight]).double()
        distributed.all_reduce(sums)
        mean, slope = (sums / count).to(values.dtype)[:, :, None, None]
        of_maps = (values - mean - normal * slope) * (weight * inverse)[:, None, None]
        return of_maps.to(gradient.dtype), of_weight, of_bias, None


def share_statistics(model: nn.Module) -> None:
    """Make every batch normalization of `model` a SharedBatchNorm, if there are several processes."""
    if PartialState().num_processes > 1:
        for layer in model.modules():
            if type(layer) is nn.BatchNorm2d:
                layer.__class__ = SharedBatchNorm
