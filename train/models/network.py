"""A PyTorch network with the interface of a compiled one: uint8 NHWC pixels in, logits out."""

import ctypes
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edge_runtime.model.contract import ModelContract

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
"""Parameters of mallopt(3), from glibc's malloc.h."""


def keep_memory() -> bool:
    """Make glibc keep freed memory in this process; return whether it could be set (glibc alone can).

    By default each activation of many megabytes goes back to the kernel when it is freed and comes back as zeroed
    pages, one page fault per 4 KiB. On a CPU that took half the time of a training step.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 256 * 2**20))
    return all(mallopt(*setting) for setting in settings)


def normalize(pixels: torch.Tensor, contract: ModelContract) -> torch.Tensor:
    """Return pixels uint8 [N, H, W, 3] as the network's input: float32 [N, 3, H, W], normalized, channels last."""
    mean = torch.tensor(contract.mean, device=pixels.device).view(1, 3, 1, 1)
    scale = torch.tensor(contract.scale, device=pixels.device).view(1, 3, 1, 1)
    images = pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.channels_last)
    return (images / 255.0 - mean) / scale


def torch_logits(
    model: nn.Module, contract: ModelContract, device: str = "cpu"
) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """Return a function from pixels uint8 [N, H, W, 3] to the logits [N, 2] of `model`, in evaluation mode."""
    if device == "cpu":
        keep_memory()
    model = model.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def logits(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            images = normalize(torch.from_numpy(pixels).to(device), contract)
            result: NDArray[np.float32] = model(images).float().cpu().numpy()
        return result

    return logits
