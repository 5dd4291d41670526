"""Where a network looked: saliency maps and feature vectors beside the logits, under Model API's names.

For a CNN the map is the class activation map (Zhou et al. 2016, "Learning Deep Features for Discriminative
Localization"); with more than one layer behind the pooling it is Grad-CAM (Selvaraju et al. 2017), whose gradient has a
closed form there. For a vision transformer it is attention rollout (Abnar and Zuidema 2020, "Quantifying Attention Flow
in Transformers"), which knows no labels: both maps are the same.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torchvision.models import VisionTransformer
from torchvision.models.feature_extraction import create_feature_extractor

from train.models.backbones import Backbone
from train.models.vit import HubViT

LOGITS = "logits"
SALIENCY = "saliency_map"
FEATURES = "feature_vector"
OUTPUTS = (LOGITS, SALIENCY, FEATURES)


@dataclass(frozen=True)
class Explained:
    """What is exported of a model.

    Attributes:
        network: images float [N, 3, H, W] to `outputs`.
        outputs: names of what it gives, the logits first.
        apart: a second network that gives all of OUTPUTS, where the maps would slow the first one down; else None.
    """

    network: nn.Module
    outputs: tuple[str, ...]
    apart: nn.Module | None = None


def explain(model: nn.Module, backbone: Backbone) -> Explained:
    """Return `model` with saliency maps and feature vectors, in evaluation mode."""
    if isinstance(model, VisionTransformer):
        return Explained(FeaturesOfViT(model).eval(), (LOGITS, FEATURES), ExplainedViT(model).eval())
    if isinstance(model, HubViT):
        return Explained(FeaturesOfHubViT(model).eval(), (LOGITS, FEATURES), ExplainedHubViT(model).eval())
    return Explained(ExplainedCNN(model, backbone).eval(), OUTPUTS)


class ExplainedCNN(nn.Module):
    """A CNN that also says where it looked.

    Images float [N, 3, H, W] go in; logits [N, 2], saliency maps [N, 2, h, w] (larger is more for that label) and
    feature vectors [N, C] come out, h × w being the size of the last feature map.
    """

    def __init__(self, model: nn.Module, backbone: Backbone) -> None:
        super().__init__()
        layers = {backbone.feature_layer: FEATURES}
        self.network = create_feature_extractor(model, layers, suppress_diff_warning=True)
        self.behind = nn.ModuleList(_behind_pooling(model, backbone.head))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return logits, saliency maps and feature vectors."""
        features = self.network(image)[FEATURES]
        pooled = features.mean((2, 3))
        logits = pooled
        for layer in self.behind:
            logits = layer(logits)
        return logits, _weighed(features, _gradient(list(self.behind), pooled)), pooled


def _weighed(features: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return features [N, C, h, w] weighed by [2, C] or [N, 2, C]: maps [N, 2, h, w].

    Fixed weights are a 1×1 convolution, which takes the features in the layout that the layer before left them in.
    """
    if weights.dim() == 2:
        return nn.functional.conv2d(features, weights[:, :, None, None])
    return torch.einsum("nkc,nchw->nkhw", weights, features)


def _behind_pooling(model: nn.Module, head: str) -> list[nn.Module]:
    """Return the layers from the pooled features to the logits."""
    parent = model.get_submodule(head.rpartition(".")[0])
    layers = list(parent) if isinstance(parent, nn.Sequential) else [model.get_submodule(head)]
    return [layer for layer in layers if not isinstance(layer, nn.Dropout)]


def _gradient(layers: Sequence[nn.Module], pooled: torch.Tensor) -> torch.Tensor:
    """Return d logits / d pooled, [2, C], or [N, 2, C] where it depends on the picture."""
    inputs, value = [], pooled
    for layer in layers:
        inputs.append(value)
        value = layer(value)
    gradient = None
    for layer, given in zip(reversed(layers), reversed(inputs), strict=True):
        if isinstance(layer, nn.Linear):
            gradient = layer.weight if gradient is None else gradient @ layer.weight
        elif isinstance(layer, nn.Hardswish) and gradient is not None:
            gradient = gradient * _hardswish_slope(given)[:, None, :]
        else:
            raise NotImplementedError(f"no closed form for {type(layer).__name__} behind the pooling")
    assert gradient is not None
    return gradient


def _hardswish_slope(given: torch.Tensor) -> torch.Tensor:
    """Return the derivative of x · relu6(x + 3) / 6: 0 below −3, 1 above 3, (2x + 3) / 6 between."""
    between = (2.0 * given + 3.0) / 6.0
    return torch.where(given <= -3.0, 0.0, torch.where(given >= 3.0, 1.0, between))


class FeaturesOfViT(nn.Module):
    """A vision transformer that also gives its feature vector: logits [N, 2] and features [N, C]."""

    def __init__(self, model: VisionTransformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits and feature vectors."""
        tokens = self.model.encoder(_tokens(self.model, image))
        return self.model.heads(tokens[:, 0]), tokens[:, 0]


class ExplainedViT(nn.Module):
    """A vision transformer that also says where it looked, by attention rollout.

    Its attention weights are computed openly, which costs more than OpenVINO's fused attention.
    """

    def __init__(self, model: VisionTransformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return logits [N, 2], saliency maps [N, 2, h, w] and feature vectors [N, C]."""
        encoder, mixed = self.model.encoder, []
        tokens = _tokens(self.model, image) + encoder.pos_embedding
        for block in encoder.layers:
            given = block.ln_1(tokens)
            attended, weights = block.self_attention(given, given, given, need_weights=True)
            tokens = tokens + attended
            tokens = tokens + block.mlp(block.ln_2(tokens))
            mixed.append(weights)
        features = encoder.ln(tokens)[:, 0]
        return self.model.heads(features), _maps(mixed), features


class FeaturesOfHubViT(nn.Module):
    """Hugging Face's vision transformer that also gives its feature vector: logits [N, 2] and features [N, C]."""

    def __init__(self, model: HubViT) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits and feature vectors."""
        network = self.model.network
        features = network.vit(pixel_values=image).last_hidden_state[:, 0]
        return network.classifier(features), features


class ExplainedHubViT(nn.Module):
    """Hugging Face's vision transformer that also says where it looked, by attention rollout."""

    def __init__(self, model: HubViT) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return logits [N, 2], saliency maps [N, 2, h, w] and feature vectors [N, C]."""
        network = self.model.network
        found = network.vit(pixel_values=image, output_attentions=True)
        features = found.last_hidden_state[:, 0]
        mixed = [heads.mean(1) for heads in found.attentions]
        return network.classifier(features), _maps(mixed), features


def _tokens(model: VisionTransformer, image: torch.Tensor) -> torch.Tensor:
    patches = model._process_input(image)
    return torch.cat([model.class_token.expand(patches.shape[0], -1, -1), patches], dim=1)


def _maps(weights: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the patches' share of the rolled-out attention, the same for both labels: [N, 2, side, side]."""
    side = math.isqrt(weights[0].shape[-1] - 1)
    return _rollout(weights)[:, 1:].reshape(-1, 1, side, side).expand(-1, 2, -1, -1)


def _rollout(weights: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return how much of each token reaches the class token, [N, tokens], for attention [N, tokens, tokens] by layer.

    Half of each layer is attention, half the way round it; only the class token's row is followed.
    """
    row: torch.Tensor | None = None
    for attention in reversed(weights):
        half = 0.5 * attention
        if row is None:
            identity = torch.zeros_like(half[:, 0])
            identity[:, 0] = 0.5
            row = half[:, 0] + identity
        else:
            row = (row[:, None] @ half)[:, 0] + 0.5 * row
    assert row is not None
    return row
