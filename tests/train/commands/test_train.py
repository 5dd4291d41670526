import shlex
import shutil
import sys
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import partial

import numpy as np
import pytest
import torch
from helpers.networks import tiny_registered
from PIL import Image

from edge_runtime.errors import DataError
from edge_runtime.model.contract import ModelContract
from edge_runtime.review.database import ReviewDatabase, ReviewFace, ReviewLabel
from train import cli
from train.choices import Preset
from train.commands.reviewed import prepare_reviewed
from train.commands.train import (
    TrainingOptions,
    calibrate_checkpoint,
    save_augmentations,
    train_detector,
    training_sections,
)
from train.data.build import load_data
from train.data.catalog import Catalog
from train.evaluation.logits import require_logits
from train.evaluation.metrics import FEW_GROUPS
from train.evaluation.training_faces import checkpoint_faces, face_mark
from train.learning.dataset import FaceDataset
from train.models.checkpoint import INPUTS, load_checkpoint
from train.self_made.fakes import add_fakes


@pytest.fixture(scope="module")
def catalog(faces):
    return load_data(faces)


@pytest.fixture
def checkpoint(tiny_checkpoint, tmp_path):
    return shutil.copy(tiny_checkpoint, tmp_path / "best.pth")


def test_checkpoint_gets_its_thresholds(checkpoint, catalog):
    random = np.random.default_rng(0)
    labels = np.array([face.label for face in catalog.split("valid")])
    logits = np.stack([-labels, labels], 1) * 4 + random.normal(0, 0.1, (len(labels), 2))
    before = load_checkpoint(checkpoint).state_dict
    contract = calibrate_checkpoint(checkpoint, catalog, logits.astype(np.float32), max_fpr=0.01, max_fnr=0.01)
    after = load_checkpoint(checkpoint)
    assert after.contract == contract
    assert after.extra["trained_on"]["sources"] == sorted({face.source for face in catalog.split("train")} - {""})
    assert contract.calibration("checkpoint").fitted
    assert contract.metrics["checkpoint"]["validation"]["auc"]["value"] == 1.0
    assert all(torch.equal(after.state_dict[key], before[key]) for key in before)


def test_intervals_are_drawn_by_identity(checkpoint, catalog):
    people = Catalog(
        tuple(replace(face, identity=f"{face.label}{index % 2}") for index, face in enumerate(catalog.records))
    )
    random = np.random.default_rng(0)
    valid = catalog.split("valid")
    logits = np.stack([np.zeros(len(valid)), random.normal(0, 1, len(valid))], 1).astype(np.float32)
    contracts = [
        calibrate_checkpoint(checkpoint, known, logits, max_fpr=0.01, max_fnr=0.01) for known in (catalog, people)
    ]
    alone, grouped = (contract.metrics["checkpoint"]["validation"]["brier"] for contract in contracts)
    assert alone["value"] == grouped["value"]
    held = [{face.identity for face in people.split("valid") if face.label == label} for label in (0, 1)]
    assert grouped["groups"] == min(map(len, held)) < alone.get("groups", FEW_GROUPS)
    found = [(calibration.reals, calibration.fakes) for calibration in (c.calibration("checkpoint") for c in contracts)]
    assert found == [(sum(not face.label for face in valid), sum(face.label for face in valid)), (*map(len, held),)]


def test_nan_logits_are_refused(catalog):
    logits = np.zeros((len(catalog.records), 2), np.float32)
    require_logits(catalog.records, logits)
    logits[3, 1] = np.nan
    with pytest.raises(DataError, match="lower --lr"):
        require_logits(catalog.records, logits)


def test_report_leaves_out_what_a_stage_has_not(tmp_path):
    common = {"train_loss": 0.5, "images_per_second": 9.0, "waiting": 0.1}
    judged = {"valid_loss": 0.6, "train_accuracy": 0.7, "valid_accuracy": 0.7, "auc": 0.8125}
    history = [{"epoch": 1, "stride": 4, **common}, {"epoch": 2, **judged, **common}]
    curves, table = training_sections(history, tmp_path)[0].blocks
    assert len(curves.pictures) == 3
    columns = dict(zip(table.head, zip(*table.rows, strict=True), strict=True))
    assert columns["validation AUC"] == ("", "0.812")
    assert columns["map learned (stride in pixels)"] == (4, "")


def test_augmentation_sheet_names_its_rows(catalog, tmp_path):
    contract = ModelContract("resnet18", input_size=48, pixels=INPUTS["native"])
    faces = FaceDataset(catalog.split("train"), contract, {"flip": 0.5, "grey": 0.1})
    save_augmentations(faces, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        alpha = np.asarray(sheet)[..., 3]
    names = alpha[:, : sheet.width - 6 * sheet.height // 2]
    assert all(row.any() for row in np.split(names, 2))


@pytest.mark.slow
@pytest.mark.parametrize(("split", "command"), [("70/15/15", "evaluate-detector"), ("80/20", "export-openvino")])
def test_training_prints_its_plan_and_the_next_command(faces, tmp_path, monkeypatch, capsys, split, command):
    options = ("--arch", "resnet18", "--preset", "quick", "--epochs", "1", "--workers", "0", "--no-pictures")
    out = str(tmp_path / "a run")
    monkeypatch.setattr(sys, "argv", ["train-detector", str(faces), *options, "--split", split, "--out", out])
    with pytest.raises(SystemExit) as ended:
        cli.train_detector_main()
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    labels = [face.label for face in load_data(faces, split=split).split("train")]
    assert f"train {labels.count(0)} real and {labels.count(1)} fake" in lines[0]
    assert "1 epoch of" in lines[1]
    assert "cpu" in lines[1]
    assert lines[2].startswith("epoch   1")
    assert shlex.split(lines[-1])[1:3] == [command, str(tmp_path / "a run" / "best.pth")]


def test_self_made_fakes_join_the_training_split(faces, tiny_backbone, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("train.self_made.autoencoder.BATCH", 2)
    monkeypatch.setattr("train.commands.train.add_fakes", partial(add_fakes, steps=1))
    changes = {"epochs": 1, "weights": "none", "batch": 8}
    for _ in range(2):
        options = TrainingOptions("tiny", Preset.QUICK, workers=0, pictures=False, bootstrap=10, self_made=True)
        trained = train_detector([faces], tmp_path / "run", options, changes)
    reals = [face for face in load_data(faces).split("train") if face.label == 0]
    made = [face for face in Catalog.read(tmp_path / "run" / "catalog.csv").records if face.generator == "self_made"]
    assert {(face.split, face.label) for face in made} == {("train", 1)}
    assert len(made) == len(reals)
    assert trained.evaluation.data["faces"] == len(load_data(faces).split("valid"))
    assert f"{len(reals)} fakes of {len(reals)} real faces" in "".join(capsys.readouterr())


def test_nothing_is_made_of_faces_that_cannot_be_trained_on(catalog, tmp_path, monkeypatch):
    known = replace(
        catalog, records=tuple(face for face in catalog.records if (face.split, face.label) != ("valid", 1))
    )
    known.write(tmp_path / "catalog.csv")
    monkeypatch.setattr("train.commands.train.add_fakes", None)
    with pytest.raises(DataError, match="valid"):
        train_detector([tmp_path], tmp_path / "run", TrainingOptions("resnet18", self_made=True), {})


@pytest.mark.slow
def test_reviewed_faces_are_learned_with_the_old_ones(make_faces, draw, tmp_path):
    """The next detector begins at the old weights and learns from old and reviewed faces, without the frozen ones."""
    load_data(make_faces()).write(tmp_path / "base" / "catalog.csv")
    changes = {"epochs": 1, "weights": "none", "batch": 8}
    options = TrainingOptions("tiny", Preset.QUICK, workers=0, pictures=False, bootstrap=10)
    with tiny_registered():
        old = train_detector([tmp_path / "base"], tmp_path / "old", options, changes)
        database = ReviewDatabase(tmp_path / "reviews.sqlite", create=True)
        for seed in range(30):
            path = tmp_path / f"{seed}.png"
            draw(9000 + seed, fake=bool(seed % 2)).save(path)
            face = ReviewFace(
                path=path,
                sha256=f"{seed:064x}",
                source="door",
                time=datetime(2026, 5, 4, seed % 24, tzinfo=timezone.utc) + timedelta(days=seed // 24),
                verdict="uncertain",
                score=0.5,
                reason="random",
            )
            label = ReviewLabel.FAKE if seed % 2 else ReviewLabel.REAL
            database.add_review(database.add_face(face), "ada", label)
        prepare_reviewed(database.path, tmp_path / "base", tmp_path / "next")
        new = train_detector(
            [tmp_path / "next"], tmp_path / "new", options, {**changes, "weights": str(old.best), "learning_rate": 1e-9}
        )
        before, after = load_checkpoint(old.best), load_checkpoint(new.best)
    learned = checkpoint_faces(after)
    reviewed = [face for face in Catalog.read(tmp_path / "next" / "catalog.csv").records if face.source == "door"]
    assert learned >= checkpoint_faces(before)
    assert learned & {face_mark(face) for face in reviewed if face.split == "train"}
    assert not learned & {face_mark(face) for face in reviewed if face.split == "test"}
    assert {face.split for face in reviewed} >= {"train", "test"}
    # With next to no learning rate the weights are still the old ones.
    assert torch.allclose(after.state_dict["fc.weight"], before.state_dict["fc.weight"], atol=1e-5)
