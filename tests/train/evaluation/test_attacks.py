from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from edge_runtime.errors import UsageError
from train.commands.evaluate import EvaluationOptions, attack_rows, evaluate_detector
from train.data.build import load_data
from train.data.sample import pick_faces
from train.evaluation.attacks import ATTACKS, attacked_logits, fgsm, train_washer, wash_fakes
from train.evaluation.evaluation import open_subject
from train.evaluation.logits import checkpoint_logits


@pytest.fixture(scope="module")
def catalog(faces):
    return load_data(faces)


def loss(logits, records):
    margin = np.where([face.label for face in records], logits[:, 1] - logits[:, 0], logits[:, 0] - logits[:, 1])
    return float(np.logaddexp(0, -margin).mean())


@pytest.mark.parametrize("name", list(ATTACKS))
def test_an_attack_misleads_more_the_stronger_it_is(tiny_checkpoint, catalog, name):
    records = catalog.records[::6]
    clean = loss(checkpoint_logits(tiny_checkpoint, records), records)
    weak, strong = (
        loss(attacked_logits(tiny_checkpoint, records, ATTACKS[name], levels), records) for levels in (1, 8)
    )
    assert clean < weak < strong


def test_an_attack_stays_within_its_strength():
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 2))
    pixels = torch.rand(4, 8, 8, 3)
    for attack in (fgsm, ATTACKS["PGD"]):
        changed = attack(network, pixels, torch.tensor([0, 1, 0, 1]), 4 / 255)
        assert float((changed - pixels).abs().max()) <= 4 / 255 + 1e-6
        assert 0 <= float(changed.min()) <= float(changed.max()) <= 1


def test_a_washer_learns_photographs_and_changes_fakes_alone(catalog, draw):
    reals = [face for face in catalog.records if face.label == 0]
    washer = train_washer(reals, steps=60, side=32)
    wash = wash_fakes(washer)
    picture = draw(3, (66, 61))
    assert wash(picture, reals[0]) is picture
    washed = wash(picture, next(face for face in catalog.records if face.label == 1))
    assert washed.size == picture.size
    difference = np.abs(np.asarray(washed, int) - np.asarray(picture, int)).mean()
    assert 0 < difference < 60


def test_that_a_bundle_can_not_be_attacked_is_said_before_anything_is_judged(tiny_checkpoint, tmp_path, monkeypatch):
    bundle = replace(open_subject(tiny_checkpoint), precision="int8")
    monkeypatch.setattr("train.commands.evaluate.open_subject", lambda *given, **options: bundle)
    monkeypatch.setattr("train.commands.evaluate.read_data", lambda data: pytest.fail("the data were read"))
    with pytest.raises(UsageError, match="--attacks needs a checkpoint"):
        evaluate_detector(tmp_path, tmp_path, tmp_path / "out", EvaluationOptions(attacks=True))


def test_pictures_that_went_away_do_not_stop_the_attacks(make_faces, tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr("train.evaluation.attacks.train_washer", partial(train_washer, steps=5, side=32))
    catalog = load_data(make_faces())
    catalog.write(tmp_path / "catalog.csv")
    for split in ("train", "test"):
        next(face for face in catalog.split(split) if face.label == 0).path.unlink()
    options = EvaluationOptions(attacks=True, bootstrap=10)
    evaluation = evaluate_detector(tiny_checkpoint, tmp_path / "catalog.csv", tmp_path / "out", options)
    assert len(evaluation.robustness) == 5
    assert len(evaluation.data["unreadable"]) == 1
    assert {row["faces"] for row in evaluation.robustness} == {evaluation.data["faces"]}


def test_without_a_photograph_that_can_be_read_there_is_no_washer(catalog, tmp_path):
    assert train_washer([]) is None
    assert train_washer([replace(catalog.records[0], path=tmp_path / "gone.png")], steps=2) is None


def test_every_attack_and_the_washed_fakes_are_rows_of_the_grid(tiny_checkpoint, catalog, monkeypatch):
    monkeypatch.setattr("train.evaluation.attacks.train_washer", partial(train_washer, steps=5, side=32))
    chosen = pick_faces(catalog.records, 8)
    rows = attack_rows(open_subject(tiny_checkpoint), catalog, chosen)
    names = ["FGSM 1/255", "FGSM 4/255", "PGD 1/255", "PGD 4/255", "fakes through an autoencoder"]
    assert [row["name"] for row in rows] == names
    assert all(row["faces"] == 8 and {"auc", "coverage", "fpr", "fnr"} <= set(row) for row in rows)
