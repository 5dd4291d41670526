"""Saliency maps: the gradient or rollout that they should be, and a sign of what matters."""

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer

from edge_runtime.pixels.pictures import read_picture
from edge_runtime.pixels.preprocess import face_pixels
from export.convert.saliency import explain
from export.faces import choose_faces
from train.models.backbones import BACKBONES
from train.models.checkpoint import import_state_dict, load_model
from train.models.network import normalize

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


def tiny_vit() -> VisionTransformer:
    torch.manual_seed(0)
    sizes = {"num_layers": 3, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 64}
    model = VisionTransformer(image_size=32, patch_size=8, num_classes=2, **sizes).eval()
    nn.init.normal_(model.heads[0].weight)
    return model


def test_a_vits_map_is_its_rolled_out_attention() -> None:
    model = tiny_vit()
    explained = explain(model, BACKBONES["vit_b_16"])
    assert explained.outputs == ("logits", "feature_vector")
    image = torch.randn(2, 3, 32, 32)
    assert explained.apart is not None
    logits, maps, features = explained.apart(image)
    torch.testing.assert_close(logits, model(image), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(explained.network(image)[0], model(image))
    torch.testing.assert_close(explained.network(image)[1], features, atol=1e-4, rtol=1e-4)

    rolled = torch.eye(17).expand(2, -1, -1)
    tokens = torch.cat([model.class_token.expand(2, -1, -1), model._process_input(image)], 1)
    tokens = tokens + model.encoder.pos_embedding
    for block in model.encoder.layers:
        given = block.ln_1(tokens)
        rolled = (0.5 * block.self_attention(given, given, given)[1] + 0.5 * torch.eye(17)) @ rolled
        tokens = block(tokens)
    torch.testing.assert_close(maps[:, 0].flatten(1), rolled[:, 0, 1:], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(maps[:, 0], maps[:, 1])


def tiny_hub_vit() -> nn.Module:
    pytest.importorskip("transformers", reason="needs transformers")
    torch.manual_seed(0)
    sizes = {"num_hidden_layers": 3, "num_attention_heads": 2, "hidden_size": 32, "intermediate_size": 64}
    model = BACKBONES["vit_hf"].build(2, image_size=32, patch_size=8, **sizes).eval()
    for name, value in model.named_parameters():
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            # Untrained, every token attends to all others alike, and any map would pass.
            nn.init.normal_(value)
    return model


def test_hugging_faces_vit_rolls_out_its_attention() -> None:
    model = tiny_hub_vit()
    explained = explain(model, BACKBONES["vit_hf"])
    assert explained.outputs == ("logits", "feature_vector")
    image = torch.randn(2, 3, 32, 32)
    assert explained.apart is not None
    logits, maps, features = explained.apart(image)
    torch.testing.assert_close(logits, model(image))
    for found, expected in zip(explained.network(image), (logits, features), strict=True):
        torch.testing.assert_close(found, expected)

    vit, rolled = model.network.vit, torch.eye(17).expand(2, -1, -1)
    tokens = vit.embeddings(image)
    for block in vit.layers:
        attention = block.attention(block.layernorm_before(tokens))[1].mean(1)
        rolled = (0.5 * attention + 0.5 * torch.eye(17)) @ rolled
        tokens = block(tokens)
    assert rolled[:, 0, 1:].std() > 1e-3
    torch.testing.assert_close(features, vit.layernorm(tokens)[:, 0])
    for label in (0, 1):
        torch.testing.assert_close(maps[:, label].flatten(1), rolled[:, 0, 1:], atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_the_hottest_quarter_matters_more_than_chance(shared) -> None:
    path = shared / "checkpoints" / "efficientnet_lite0_faces.pth"
    checkpoint = import_state_dict(path, arch="efficientnet_lite0", labels=("real", "fake"), input_preset="native")
    network = explain(load_model(checkpoint), BACKBONES["efficientnet_lite0"]).network
    faces = choose_faces(shared / "faces" / "stylegan", calibration=2, measured=100).measured
    assert len(faces) == 100
    generator, hot, chance = np.random.default_rng(42), [], []
    with torch.inference_mode():
        for face in faces:
            pixels = face_pixels(read_picture(face.path), None, checkpoint.contract)
            image = normalize(torch.from_numpy(pixels), checkpoint.contract)
            logits, maps, _ = network(image)
            label = int(logits.argmax())
            heat = maps[0, label].numpy()
            masked = [_masked(image, heat), *(_masked(image, generator.random(heat.shape)) for _ in range(2))]
            scores = network(torch.cat([image, *masked]))[0].softmax(1)[:, label]
            hot.append(float(scores[0] - scores[1]))
            chance.append(float((scores[0] - scores[2:]).mean()))
    difference = np.array(hot) - np.array(chance)
    assert difference.mean() > 2 * difference.std() / np.sqrt(len(difference)), (np.mean(hot), np.mean(chance))


def _masked(image: torch.Tensor, heat: np.ndarray) -> torch.Tensor:
    """Fill the hottest quarter of the places with the mean colour."""
    side = image.shape[-1]
    places = torch.from_numpy(heat >= np.quantile(heat, 0.75))
    mask = nn.functional.interpolate(places[None, None].float(), size=(side, side))
    return torch.where(mask > 0, image.mean((2, 3), keepdim=True), image)
