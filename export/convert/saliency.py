"""Adds saliency maps (where a network looked) and feature vectors to the logits, under Model API's names.

For a CNN the map is the class activation map (Zhou et al. 2016, "Learning Deep Features for Discriminative
Localization"); with more than one layer behind the pooling it is Grad-CAM (Selvaraju et al. 2017), whose gradient has a
closed form there. For a vision transformer it is attention rollout (Abnar and Zuidema 2020, "Quantifying Attention Flow
in Transformers"), which does not depend on the label: both maps are the same.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torchvision.models import VisionTransformer
from torchvision.models.feature_extraction import create_feature_extractor

from edge_runtime.model.reference import FEATURES
from train.models.backbones import Backbone
from train.models.vit import HubViT

LOGITS = "logits"
SALIENCY = "saliency_map"
OUTPUTS = (LOGITS, SALIENCY, FEATURES)
WRAPPERS = re.compile(r"^(network|model)\.")
"""Prefix that the modules here add to the names of the model's own layers."""


@dataclass(frozen=True)
class Explained:
    """A model as it is exported: from images float [N, 3, H, W] to `outputs`, the logits first.

    `apart` is a second network that gives all of OUTPUTS, where the maps would slow the first one down.
    """

    network: nn.Module
    outputs: tuple[str, ...]
    apart: nn.Module | None = None


def explain(model: nn.Module, backbone: Backbone) -> Explained:
    """Return `model` with saliency maps and feature vectors, in evaluation mode."""
    if isinstance(model, (VisionTransformer, HubViT)):
        quick, slow = (ExplainedViT(model, maps=maps).eval() for maps in (False, True))
        return Explained(quick, (LOGITS, FEATURES), slow)
    return Explained(ExplainedCNN(model, backbone).eval(), OUTPUTS)


class ExplainedCNN(nn.Module):
    """A CNN with saliency maps.

    From images float [N, 3, H, W] to logits [N, 2], saliency maps [N, 2, h, w] (larger means more evidence for that
    label) and feature vectors [N, C]; h × w is the size of the last feature map.
    """

    def __init__(self, model: nn.Module, backbone: Backbone) -> None:
        super().__init__()
        layers = {backbone.feature_layer: FEATURES}
        self.network = create_feature_extractor(model, layers, suppress_diff_warning=True)
        parent = model.get_submodule(backbone.head.rpartition(".")[0])
        head = list(parent) if isinstance(parent, nn.Sequential) else [model.get_submodule(backbone.head)]
        self.head = nn.ModuleList(layer for layer in head if not isinstance(layer, nn.Dropout))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return logits, saliency maps and feature vectors."""
        features = self.network(image)[FEATURES]
        pooled = features.mean((2, 3))
        inputs, logits = [], pooled
        for layer in self.head:
            inputs.append(logits)
            logits = layer(logits)
        weights = gradient_behind_pooling(list(self.head), inputs)
        if weights.dim() == 2:
            # As a 1×1 convolution it takes the features in the layout that the layer before left them in.
            return logits, nn.functional.conv2d(features, weights[:, :, None, None]), pooled
        return logits, torch.einsum("nkc,nchw->nkhw", weights, features), pooled


def gradient_behind_pooling(layers: Sequence[nn.Module], inputs: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return d logits / d inputs[0] of the `layers` behind the pooling: [2, C], or [N, 2, C] where images differ.

    The derivative of Hardswish, x · relu6(x + 3) / 6, is 0 below −3, 1 above 3, and (2x + 3) / 6 between.
    """
    gradient = None
    for layer, given in zip(reversed(layers), reversed(inputs), strict=True):
        if isinstance(layer, nn.Linear):
            gradient = layer.weight if gradient is None else gradient @ layer.weight
        elif isinstance(layer, nn.Hardswish) and gradient is not None:
            slope = torch.where(given <= -3.0, 0.0, torch.where(given >= 3.0, 1.0, (2.0 * given + 3.0) / 6.0))
            gradient = gradient * slope[:, None, :]
        else:
            raise NotImplementedError(f"no closed form for {type(layer).__name__} behind the pooling")
    assert gradient is not None
    return gradient


class ExplainedViT(nn.Module):
    """A vision transformer with feature vectors, and on request with saliency maps by attention rollout.

    Maps need the attention weights, which costs more than OpenVINO's fused attention.
    """

    def __init__(self, model: VisionTransformer | HubViT, *, maps: bool) -> None:
        super().__init__()
        self.model, self.maps = model, maps

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return logits [N, 2], with `maps` the saliency maps [N, 2, h, w], and feature vectors [N, C]."""
        attention: list[torch.Tensor] = []
        if isinstance(self.model, HubViT):
            network = self.model.network
            found = network.vit(pixel_values=image, output_attentions=self.maps)
            features, head = found.last_hidden_state[:, 0], network.classifier
            if self.maps:
                attention = [heads.mean(1) for heads in found.attentions]
        else:
            encoder, head, patches = self.model.encoder, self.model.heads, self.model._process_input(image)
            tokens = torch.cat([self.model.class_token.expand(patches.shape[0], -1, -1), patches], dim=1)
            if self.maps:
                tokens = tokens + encoder.pos_embedding
                for block in encoder.layers:
                    given = block.ln_1(tokens)
                    attended, weights = block.self_attention(given, given, given, need_weights=True)
                    tokens = tokens + attended
                    tokens = tokens + block.mlp(block.ln_2(tokens))
                    attention.append(weights)
            features = (encoder.ln(tokens) if self.maps else encoder(tokens))[:, 0]
        return (head(features), attention_rollout(attention), features) if self.maps else (head(features), features)


def attention_rollout(attention: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return how much of each patch reaches the class token, for both labels: [N, 2, side, side].

    Half of each layer is `attention` [N, tokens, tokens], half the connection around it. Only the class token's row is
    followed, from the last layer back.
    """
    last = 0.5 * attention[-1]
    own = torch.zeros_like(last[:, 0])
    own[:, 0] = 0.5
    row = last[:, 0] + own
    for weights in reversed(attention[:-1]):
        row = (row[:, None] @ (0.5 * weights))[:, 0] + 0.5 * row
    side = math.isqrt(attention[0].shape[-1] - 1)
    return row[:, 1:].reshape(-1, 1, side, side).expand(-1, 2, -1, -1)
