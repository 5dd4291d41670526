"""Saliency maps are the gradient or the rollout that they should be."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer

from export.convert.saliency import explain
from train.models.backbones import BACKBONES

CNNS = [name for name in BACKBONES if not name.startswith("vit")]


@pytest.mark.parametrize("name", CNNS)
def test_a_cnns_map_is_features_times_gradient(name: str) -> None:
    torch.manual_seed(0)
    backbone = BACKBONES[name]
    model = backbone.build(2).eval()
    explained = explain(model, backbone)
    assert explained.outputs == ("logits", "saliency_map", "feature_vector")
    image = torch.randn(2, 3, 64, 64)
    logits, maps, features = explained.network(image)
    torch.testing.assert_close(logits, model(image))

    seen = {}
    layer = model.get_submodule(backbone.feature_layer)
    handle = layer.register_forward_hook(lambda layer, given, found: seen.update(features=found))
    fake = model(image)[:, 1].sum()
    handle.remove()
    gradient = torch.autograd.grad(fake, seen["features"])[0]
    places = gradient.shape[2] * gradient.shape[3]
    expected = (gradient.mean((2, 3), keepdim=True) * seen["features"]).sum(1) * places
    torch.testing.assert_close(maps[:, 1], expected, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(features, seen["features"].mean((2, 3)))


def tiny_vit(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name == "vit_b_16":
        sizes = {"num_layers": 3, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 64}
        model = VisionTransformer(image_size=32, patch_size=8, num_classes=2, **sizes).eval()
        nn.init.normal_(model.heads[0].weight)
        return model
    pytest.importorskip("transformers", reason="needs transformers")
    sizes = {"num_hidden_layers": 3, "num_attention_heads": 2, "hidden_size": 32, "intermediate_size": 64}
    model = BACKBONES[name].build(2, image_size=32, patch_size=8, **sizes).eval()
    for key, value in model.named_parameters():
        if key.endswith(("q_proj.weight", "k_proj.weight")):
            # Untrained, every token attends to all others alike, and any map would pass.
            nn.init.normal_(value)
    return model


def attention(model: nn.Module, image: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield each layer's attention [N, tokens, tokens], the mean over heads, as the model itself computes it."""
    if isinstance(model, VisionTransformer):
        tokens = torch.cat([model.class_token.expand(len(image), -1, -1), model._process_input(image)], 1)
        tokens = tokens + model.encoder.pos_embedding
        for block in model.encoder.layers:
            given = block.ln_1(tokens)
            yield block.self_attention(given, given, given)[1]
            tokens = block(tokens)
        return
    tokens = model.network.vit.embeddings(image)
    for block in model.network.vit.layers:
        yield block.attention(block.layernorm_before(tokens))[1].mean(1)
        tokens = block(tokens)


@pytest.mark.parametrize("name", ["vit_b_16", "vit_hf"])
def test_a_vits_map_is_its_rolled_out_attention(name: str) -> None:
    model, image = tiny_vit(name), torch.randn(2, 3, 32, 32)
    explained = explain(model, BACKBONES[name])
    assert explained.outputs == ("logits", "feature_vector")
    assert explained.apart is not None
    logits, maps, features = explained.apart(image)
    close = {"atol": 1e-4, "rtol": 1e-4}
    torch.testing.assert_close(logits, model(image), **close)
    for found, expected in zip(explained.network(image), (model(image), features), strict=True):
        torch.testing.assert_close(found, expected, **close)
    rolled = torch.eye(17).expand(2, -1, -1)
    for layer in attention(model, image):
        rolled = (0.5 * layer + 0.5 * torch.eye(17)) @ rolled
    assert rolled[:, 0, 1:].std() > 1e-4
    for label in (0, 1):
        torch.testing.assert_close(maps[:, label].flatten(1), rolled[:, 0, 1:], atol=1e-5, rtol=1e-4)
