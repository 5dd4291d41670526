import os
import pickle

import pytest
import torch

from edge_runtime.errors import CheckpointError, UsageError
from edge_runtime.model.contract import Fit, ModelContract
from train.models.backbones import build_backbone
from train.models.checkpoint import INPUTS, import_state_dict, load_checkpoint, load_model, save_checkpoint


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """What the first article's code saves: `torch.save(model.state_dict(), …)`, here of resnet18."""
    torch.manual_seed(1)
    model = build_backbone("resnet18").eval()
    path = tmp_path_factory.mktemp("bare") / "model.pth"
    torch.save(model.state_dict(), path)
    return path, model


def logits(model):
    with torch.inference_mode():
        return model(torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64))


def test_checkpoint_keeps_contract_and_network(tmp_path, bare):
    contract = ModelContract("resnet18", version="1.2.0", pixels=INPUTS["native5"], data="ab")
    save_checkpoint(tmp_path / "a" / "best.pth", bare[1], contract, catalog="/c.csv", step=3)
    checkpoint = load_checkpoint(tmp_path / "a" / "best.pth")
    assert checkpoint.contract == contract
    assert (checkpoint.catalog, checkpoint.extra) == ("/c.csv", {"step": 3})
    assert torch.equal(logits(load_model(checkpoint)), logits(bare[1]))


def test_loaded_network_is_in_evaluation_mode(tiny_checkpoint):
    assert not load_model(load_checkpoint(tiny_checkpoint)).training


def test_failed_save_leaves_the_old_checkpoint(tmp_path, bare):
    path = tmp_path / "last.pth"
    save_checkpoint(path, bare[1], ModelContract("resnet18"), step=1)
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
        save_checkpoint(path, bare[1], ModelContract("resnet18"), step=lambda: 2)
    assert load_checkpoint(path).extra["step"] == 1


def test_swapped_labels_swap_the_outputs(bare):
    straight = import_state_dict(bare[0], arch="resnet18", labels=("real", "fake"), input_preset="article")
    turned = import_state_dict(bare[0], arch="resnet18", labels=("fake", "real"), input_preset="article")
    assert straight.contract.pixels.fit is Fit.STRETCH
    assert torch.equal(logits(load_model(straight)), logits(bare[1]))
    assert torch.allclose(logits(load_model(turned)), logits(bare[1]).flip(1))


def test_half_precision_becomes_float32(tmp_path, bare):
    torch.save(
        {key: value.half() if value.is_floating_point() else value for key, value in bare[1].state_dict().items()},
        tmp_path / "half.pth",
    )
    checkpoint = import_state_dict(
        tmp_path / "half.pth", arch="resnet18", labels=("real", "fake"), input_preset="resize"
    )
    assert {value.dtype for value in checkpoint.state_dict.values()} == {torch.float32, torch.int64}


def test_keys_that_do_not_fit_are_named(tmp_path, bare):
    state = dict(bare[1].state_dict())
    state["extra.weight"] = state.pop("layer1.0.conv1.weight")
    state["fc.bias"] = torch.zeros(3)
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError) as error:
        import_state_dict(tmp_path / "odd.pth", arch="resnet18", labels=("real", "fake"), input_preset="resize")
    for part in ("1 missing: layer1.0.conv1.weight", "1 unknown: extra.weight", "1 of another shape: fc.bias"):
        assert part in str(error.value)


def test_another_architecture_is_refused(bare):
    with pytest.raises(CheckpointError, match=r"not the weights of resnet50 \(.*missing"):
        import_state_dict(bare[0], arch="resnet50", labels=("real", "fake"), input_preset="resize")


def test_wrong_architecture_in_contract_is_refused(tmp_path, bare):
    save_checkpoint(tmp_path / "lie.pth", bare[1], ModelContract("shufflenet_v2_x1_0"))
    with pytest.raises(CheckpointError, match="not the weights of shufflenet_v2_x1_0"):
        load_model(load_checkpoint(tmp_path / "lie.pth"))


class Trap:
    def __reduce__(self):
        return os.mkdir, ("trapped",)


def test_code_inside_a_checkpoint_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"format": 1, "model": Trap()}, "trap.pth")
    with pytest.raises(CheckpointError, match="would run code when it is read"):
        load_checkpoint("trap.pth")
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x02.", b"PK\x03\x04" + b"0" * 100, None])
def test_broken_file_is_refused_in_one_line(tmp_path, tiny_checkpoint, content):
    truncated = tiny_checkpoint.read_bytes()[:100_000]
    (tmp_path / "broken.pth").write_bytes(truncated if content is None else content)
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(tmp_path / "broken.pth")
    assert "broken.pth" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("model", [None, 3, {"fc.weight": 1}])
def test_checkpoint_without_weights_is_refused(tmp_path, tiny_checkpoint, model):
    values = torch.load(tiny_checkpoint, weights_only=True) | {"model": model}
    if model is None:
        del values["model"]
    torch.save(values, tmp_path / "half.pth")
    with pytest.raises(CheckpointError, match=r"half\.pth: ") as error:
        load_checkpoint(tmp_path / "half.pth")
    assert "\n" not in str(error.value)


def test_missing_file_and_directory_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="not found"):
        load_checkpoint(tmp_path / "nothing.pth")
    with pytest.raises(CheckpointError, match=r"is a directory; give a checkpoint"):
        load_checkpoint(tmp_path)


def test_bare_state_dict_needs_export(bare):
    with pytest.raises(CheckpointError, match="export-openvino"):
        load_checkpoint(bare[0])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"arch": "resnet5"}, "--arch resnet5"),
        ({"labels": ("real", "real")}, "--labels real,real"),
        ({"input_preset": "big"}, "--input big"),
    ],
)
def test_unknown_choices_are_refused(bare, options, said):
    given = {"arch": "resnet18", "labels": ("real", "fake"), "input_preset": "resize", **options}
    with pytest.raises(UsageError, match=said):
        import_state_dict(bare[0], **given)
