import argparse
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
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
    model = load_model(checkpoint)
    assert not model.training
    assert torch.equal(logits(model), logits(bare[1]))


def test_failed_save_leaves_the_old_checkpoint(tmp_path, bare):
    path = tmp_path / "last.pth"
    save_checkpoint(path, bare[1], ModelContract("resnet18"), step=1)
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
        save_checkpoint(path, bare[1], ModelContract("resnet18"), step=lambda: 2)
    assert load_checkpoint(path).extra["step"] == 1


def test_swapped_labels_swap_the_outputs(bare):
    straight, turned = (
        import_state_dict(bare[0], arch="resnet18", labels=labels, input_preset="article")
        for labels in (("real", "fake"), ("fake", "real"))
    )
    assert straight.contract.pixels.fit is Fit.STRETCH
    assert torch.equal(logits(load_model(straight)), logits(bare[1]))
    assert torch.allclose(logits(load_model(turned)), logits(bare[1]).flip(1))


def test_wrong_architecture_in_contract_is_refused(tmp_path, bare):
    save_checkpoint(tmp_path / "lie.pth", bare[1], ModelContract("shufflenet_v2_x1_0"))
    with pytest.raises(CheckpointError, match="not the weights of shufflenet_v2_x1_0"):
        load_model(load_checkpoint(tmp_path / "lie.pth"))


def prefixed(prefix, state):
    return {prefix + key: value for key, value in state.items()}


def halved(state):
    return {key: value.half() if value.is_floating_point() else value for key, value in state.items()}


SAVED = {
    "data parallel": lambda state: prefixed("module.", state),
    "compiled within data parallel": lambda state: prefixed("module._orig_mod.", state),
    "within state_dict": lambda state: {"state_dict": state, "epoch": 3, "optimizer": {}},
    "within model_state_dict": lambda state: {"model_state_dict": state},
    "within model, with arguments": lambda state: {"model": state, "args": argparse.Namespace(lr=1, out=Path("x"))},
    "with numpy values": lambda state: {"net": state, "auc": np.float64(0.9), "curve": np.ones(3)},
    "beside other values": lambda state: {**state, "epoch": 3},
    "lightning": lambda state: {"state_dict": prefixed("model.", state), "hyper_parameters": {"lr": 1e-3}},
    "beside a loss with weights": lambda state: prefixed("model.", state) | {"criterion.weight": torch.ones(2)},
    "averaged": lambda state: prefixed("module.", state) | {"n_averaged": torch.tensor(4)},
    "beside an average": lambda state: {"state_dict": state, "state_dict_ema": halved(prefixed("x.", state))},
    "profiled": lambda state: {**state, "body.0.total_ops": torch.zeros(1), "total_params": torch.zeros(1)},
    "without counters": lambda state: {key: state[key] for key in state if "num_batches_tracked" not in key},
    "dropout before the head": lambda state: {key.replace("fc.", "fc.1."): state[key] for key in state},
}
"""How people save the weights of a network, all to be read as those of the bare network."""


@pytest.fixture
def tiny_state(tiny_backbone):
    torch.manual_seed(2)
    return tiny_backbone.build(2).state_dict()


def read(path, labels=("real", "fake"), **options):
    return import_state_dict(path, arch="tiny", labels=labels, input_preset="resize", **options)


@pytest.mark.parametrize("how", SAVED)
def test_weights_are_read_however_saved(tmp_path, tiny_state, caplog, how):
    torch.save(SAVED[how](tiny_state), tmp_path / "saved.pth")
    state = read(tmp_path / "saved.pth").state_dict
    assert all(torch.equal(state[key], value) for key, value in tiny_state.items() if "num_batches" not in key)
    assert len(caplog.records) == 1  # one note says what was adapted


@pytest.mark.parametrize("name", ["bare.pth", "old.pth", "half.pth", "bare.safetensors"])
def test_bare_weights_are_read_without_a_note(tmp_path, tiny_state, caplog, name):
    path = tmp_path / name
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(tiny_state, path)
    else:
        state = halved(tiny_state) if name == "half.pth" else tiny_state
        torch.save(state, path, _use_new_zipfile_serialization=name != "old.pth")
    found = read(path).state_dict
    assert all(torch.allclose(found[key], value, atol=1e-3) for key, value in tiny_state.items())
    assert {value.dtype for value in found.values()} == {torch.float32, torch.int64}
    assert not caplog.records


def test_running_average_is_taken_on_demand(tmp_path, tiny_state):
    average = {key: value + 1 for key, value in tiny_state.items()}
    torch.save({"model": tiny_state, "model_ema": average}, tmp_path / "both.pth")
    state = read(tmp_path / "both.pth", average=True).state_dict
    assert torch.equal(state["fc.weight"], average["fc.weight"])
    torch.save(tiny_state, tmp_path / "bare.pth")
    with pytest.raises(UsageError, match="--use-ema"):
        read(tmp_path / "bare.pth", average=True)


@pytest.mark.parametrize("labels", [("real", "fake"), ("fake", "real")])
def test_one_logit_becomes_two(tmp_path, tiny_backbone, labels):
    one = tiny_backbone.build(1).eval()
    torch.save(one.state_dict(), tmp_path / "one.pth")
    two = load_model(read(tmp_path / "one.pth", labels))
    images = torch.randn(4, 3, 32, 32)
    with torch.inference_mode():
        z, answers = one(images)[:, 0], two(images)
    torch.testing.assert_close(answers[:, 1] - answers[:, 0], z if labels[1] == "fake" else -z)


def test_whole_models_are_refused_with_the_way_out(tmp_path, tiny_backbone, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network = tiny_backbone.build(2).eval()
    torch.save(network, "whole.pth")
    torch.save(network, "old.pth", _use_new_zipfile_serialization=False)
    torch.jit.trace(network, torch.zeros(1, 3, 32, 32)).save("script.pt")
    for name in ("whole.pth", "old.pth", "script.pt"):
        with pytest.raises(CheckpointError) as error:
            read(Path(name))
        exec(str(error.value).rpartition("weights: ")[2])
        assert read(Path("weights.pth")).state_dict.keys() == network.state_dict().keys()
        Path("weights.pth").unlink()


def test_keys_that_do_not_fit_are_named(tmp_path, tiny_state):
    state = {**tiny_state, "fc.weight": torch.zeros(7, 16)}
    state["extra.weight"] = state.pop("body.0.weight")
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match="weights of tiny with other layers") as error:
        read(tmp_path / "odd.pth")
    for part in ("missing: body.0.weight", "unknown: extra.weight", "fc.weight [7, 16] instead of [2, 16]"):
        assert part in str(error.value)


class Trap:
    def __reduce__(self):
        return os.mkdir, ("trapped",)


def test_code_inside_a_checkpoint_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"format": 1, "model": Trap()}, "trap.pth")
    with pytest.raises(CheckpointError, match=r"holds .*mkdir, which could run code"):
        load_checkpoint("trap.pth")
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\x80\x02.", b"PK\x03\x04" + b"0" * 100, None, 3, {"fc.weight": 1}]
)
def test_broken_file_is_refused_in_one_line(tmp_path, tiny_checkpoint, content):
    broken = tmp_path / "broken.pth"
    if isinstance(content, bytes):
        broken.write_bytes(content)
    elif content is None:
        broken.write_bytes(tiny_checkpoint.read_bytes()[:100_000])
    else:
        torch.save(torch.load(tiny_checkpoint, weights_only=True) | {"model": content}, broken)
    with pytest.raises(CheckpointError, match=r"broken\.pth") as error:
        load_checkpoint(broken)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"arch": "resnet50"}, r"not the weights of resnet50 \(.*missing"),
        ({"labels": ("real", "real")}, "--labels real,real"),
        ({"input_preset": "big"}, "--input big"),
    ],
)
def test_unfit_choices_are_refused(bare, options, said):
    given = {"arch": "resnet18", "labels": ("real", "fake"), "input_preset": "resize", **options}
    with pytest.raises((CheckpointError, UsageError), match=said):
        import_state_dict(bare[0], **given)
