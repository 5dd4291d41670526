"""Where a network looked: saliency maps and feature vectors beside the logits, under Model API's names.

For a CNN the map is the class activation map (Zhou et al. 2016, "Learning Deep Features for Discriminative
Localization"); with more than one layer behind the pooling it is Grad-CAM (Selvaraju et al. 2017), whose gradient has a
closed form there.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from train.backbones import Backbone

LOGITS = "logits"
SALIENCY = "saliency_map"
FEATURES = "feature_vector"
OUTPUTS = (LOGITS, SALIENCY, FEATURES)


class ExplainedCNN(nn.Module):
    """A CNN that also says where it looked.

    Images float [N, 3, H, W] go in; logits [N, 2], saliency maps [N, 2, h, w] (larger is more for that label) and
    feature vectors [N, C] come out, h × w being the size of the last feature map.
    """

    def __init__(self, model: nn.Module, backbone: Backbone) -> None:
        super().__init__()
        self.network = create_feature_extractor(
            model, {backbone.feature_layer: FEATURES, backbone.head: LOGITS}, suppress_diff_warning=True
        )
        self.behind = nn.ModuleList(_behind_pooling(model, backbone.head))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return logits, saliency maps and feature vectors."""
        found = self.network(image)
        features = found[FEATURES]
        pooled = features.mean((2, 3))
        weights = _gradient(list(self.behind), pooled)
        equation = "nkc,nchw->nkhw" if weights.dim() == 3 else "kc,nchw->nkhw"
        return found[LOGITS], torch.einsum(equation, weights, features), pooled


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
