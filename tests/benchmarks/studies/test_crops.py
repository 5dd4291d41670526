from dataclasses import replace

import pytest

from benchmarks.studies import crops
from edge_runtime.inference.classifier import Classifier
from edge_runtime.model.contract import ModelContract, PixelRecipe
from train.data.build import load_data
from train.data.sample import pick_faces

INPUTS = ["article", "resize", "native", "native5", "frame"]


def test_every_way_is_judged_and_timed(bundle, faces, monkeypatch, capsys):
    monkeypatch.setattr(crops, "RESAMPLES", 10)
    xml, contract = crops.open_network(bundle.path, faces)
    rows = crops.compare_ways(xml, contract, pick_faces(load_data(faces).records, 20))
    assert [(row.name, row.own) for row in rows] == [(name, name == "resize") for name in INPUTS]
    for row in rows:
        assert list(row.auc) == ["clean", "JPEG 50", "scale 0.5"]
        assert all(0 <= figure["low"] <= figure["value"] <= figure["high"] <= 1 for figure in row.auc.values())
        assert row.ms > 0
    crops.print_ways("tiny", rows)
    assert "resize *" in capsys.readouterr().out


def test_bootstrap_keeps_identities_together(bundle, faces, monkeypatch):
    xml, contract = crops.open_network(bundle.path, faces)
    people = [replace(face, identity="she") for face in load_data(faces).records]
    groups, measure = [], crops.measure
    monkeypatch.setattr(crops, "measure", lambda *a, **k: groups.append(k["groups"]) or measure(*a, **k))
    crops.judge_way(Classifier(xml, contract), contract, people, crops.CONDITIONS[0])
    assert len(set(groups[0])) == 1


def test_native5_judges_five_crops(bundle, faces):
    contracts = crops.ways(bundle.contract)
    shown = {}

    class Watched:
        def logits(self, pixels):
            shown.setdefault(len(pixels), 0)
            shown[len(pixels)] += 1

    crops.time_ways(Watched(), contracts, load_data(faces).records[:3])
    turns = 3 * (crops.ROUNDS + 1)
    assert shown == {1: 4 * turns, 5: turns}


def test_resizing_ways_use_the_networks_input_size():
    contract = ModelContract("tiny", input_size=96, pixels=PixelRecipe(resize_to=None))
    assert [way.pixels.resize_to for way in crops.ways(contract).values()] == [96, 96, None, None, 109]


@pytest.mark.slow
def test_checkpoint_is_exported_first(tmp_path, faces):
    import torch

    from train.models.backbones import build_backbone
    from train.models.checkpoint import INPUTS as RECIPES
    from train.models.checkpoint import save_checkpoint

    torch.manual_seed(0)
    contract = ModelContract("shufflenet_v2_x1_0", input_size=32, pixels=RECIPES["native"])
    save_checkpoint(tmp_path / "best.pth", build_backbone("shufflenet_v2_x1_0"), contract)
    assert crops.crops([tmp_path / "best.pth"], faces, split="all", faces=20) == 0
