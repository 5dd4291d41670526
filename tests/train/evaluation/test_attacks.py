from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from train.data.build import load_data
from train.data.sample import pick_faces
from train.evaluation.attacks import ATTACKS, attack_rows, attacked_logits, train_washer, wash_fakes
from train.evaluation.evaluation import open_subject
from train.evaluation.logits import checkpoint_logits


@pytest.fixture(scope="module")
def catalog(faces):
    return load_data(faces)


def loss(logits, records):
    margin = np.where([face.label for face in records], logits[:, 1] - logits[:, 0], logits[:, 0] - logits[:, 1])
    return float(np.logaddexp(0, -margin).mean())


@pytest.mark.parametrize("name", list(ATTACKS))
def test_a_stronger_attack_misleads_more(tiny_checkpoint, catalog, name):
    records = catalog.records[::6]
    clean = loss(checkpoint_logits(tiny_checkpoint, records), records)
    weak, strong = (
        loss(attacked_logits(tiny_checkpoint, records, ATTACKS[name], levels), records) for levels in (1, 8)
    )
    assert clean < weak < strong


@pytest.mark.parametrize("name", list(ATTACKS))
def test_an_attack_stays_within_its_strength(name):
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 2))
    pixels = torch.rand(4, 8, 8, 3)
    changed = ATTACKS[name](network, pixels, torch.tensor([0, 1, 0, 1]), 4 / 255)
    assert float((changed - pixels).abs().max()) <= 4 / 255 + 1e-6
    assert 0 <= float(changed.min()) <= float(changed.max()) <= 1


def test_a_washer_changes_only_fakes(catalog, draw):
    reals = [face for face in catalog.records if face.label == 0]
    wash = wash_fakes(train_washer(reals, steps=60, side=32))
    picture = draw(3, (66, 61))
    assert wash(picture, reals[0]) is picture
    washed = wash(picture, next(face for face in catalog.records if face.label == 1))
    assert washed.size == picture.size
    difference = np.abs(np.asarray(washed, int) - np.asarray(picture, int)).mean()
    assert 0 < difference < 60


def test_a_washer_needs_a_readable_photograph(catalog, tmp_path):
    assert train_washer([]) is None
    assert train_washer([replace(catalog.records[0], path=tmp_path / "gone.png")], steps=2) is None


def test_every_attack_is_a_row(tiny_checkpoint, catalog, monkeypatch):
    monkeypatch.setattr("train.evaluation.attacks.train_washer", partial(train_washer, steps=5, side=32))
    rows = attack_rows(open_subject(tiny_checkpoint), catalog, pick_faces(catalog.records, 8), 10)
    names = ["FGSM 1/255", "FGSM 4/255", "PGD 1/255", "PGD 4/255", "fakes through an autoencoder"]
    assert [row["name"] for row in rows] == names
    assert {row["faces"] for row in rows} == {8}
