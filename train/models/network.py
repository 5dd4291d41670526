"""A PyTorch network as the same function of pixels as a compiled one: uint8 NHWC in, logits out."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edge_runtime.model.contract import ModelContract
from train.learning.memory import keep_memory


def normalize(pixels: torch.Tensor, contract: ModelContract) -> torch.Tensor:
    """Turn pixels uint8 [N, H, W, 3] into the network's input, float32 [N, 3, H, W], normalized, channels last."""
    mean = torch.tensor(contract.mean, device=pixels.device).view(1, 3, 1, 1)
    scale = torch.tensor(contract.scale, device=pixels.device).view(1, 3, 1, 1)
    images = pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.channels_last)
    return (images / 255.0 - mean) / scale


def torch_logits(
    model: nn.Module, contract: ModelContract, device: str = "cpu"
) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """Return the function from pixels uint8 [N, H, W, 3] to logits [N, 2] that `model` computes in float32."""
    if device == "cpu":
        keep_memory()
    model = model.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def logits(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            images = normalize(torch.from_numpy(pixels).to(device), contract)
            result: NDArray[np.float32] = model(images).float().cpu().numpy()
        return result

    return logits
