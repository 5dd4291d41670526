"""The second article's backbone: Hugging Face Transformers' `ViTForImageClassification` (extra `vit`)."""

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from edge_runtime.errors import UsageError
from edge_runtime.paths import expand

if TYPE_CHECKING:
    from transformers import ViTForImageClassification

HUB = "google/vit-base-patch16-224-in21k"
MEAN = SCALE = (0.5, 0.5, 0.5)
"""Per channel RGB, of pixels in [0, 1]: what the weights were trained with."""

ACCEPTED = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "image_size",
    "patch_size",
)
"""The part of its configuration that a checkpoint keeps; the rest has the library's defaults."""


class HubViT(nn.Module):
    """Normalized pixels [N, 3, H, W] to logits [N, classes]; `build_vit(classes, **options)` builds it again."""

    def __init__(self, network: "ViTForImageClassification") -> None:
        super().__init__()
        self.network = network
        self.options = {name: getattr(network.config, name) for name in ACCEPTED}

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        logits: torch.Tensor = self.network(pixel_values=pixels).logits
        return logits


def build_vit(classes: int, **options: Any) -> nn.Module:
    """Build a ViT without weights. `options` are keys of ACCEPTED; those of ViT-Base where missing.

    Raises:
        UsageError: the extra `vit` is not installed.
    """
    transformers = _transformers()
    config = transformers.ViTConfig(num_labels=classes, attn_implementation="eager", **options)
    return HubViT(transformers.ViTForImageClassification(config))


def pretrained_vit(weights: str, classes: int) -> nn.Module:
    """Build a ViT with a new head and the weights of a name on the hub (`imagenet` is HUB) or of a local folder.

    Raises:
        UsageError: they can't be loaded, or the extra `vit` is not installed.
    """
    transformers = _transformers()
    folder = expand(weights)
    place = HUB if weights == "imagenet" else str(folder) if folder.exists() else weights
    try:
        network = transformers.ViTForImageClassification.from_pretrained(
            place, num_labels=classes, ignore_mismatched_sizes=True, attn_implementation="eager"
        )
    except (OSError, ValueError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise UsageError(
            f"--weights {weights}: can't be loaded ({reason}); go online once, give a local folder, or --weights none"
        ) from None
    return HubViT(network)


def _transformers() -> Any:
    try:
        import transformers
    except ImportError:
        raise UsageError("--arch vit_hf needs transformers; run pip install transformers") from None
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers
