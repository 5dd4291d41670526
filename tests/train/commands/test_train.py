import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from edge_runtime.errors import DataError
from train.commands.train import calibrate_checkpoint, training_sections
from train.data.build import load_data
from train.data.catalog import Catalog
from train.evaluation.logits import require_logits
from train.models.checkpoint import load_checkpoint


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
    alone, grouped = (
        calibrate_checkpoint(checkpoint, known, logits, max_fpr=0.01, max_fnr=0.01).metrics["checkpoint"]["validation"]
        for known in (catalog, people)
    )
    assert alone["brier"]["value"] == grouped["brier"]["value"]
    assert alone["brier"]["low"] != grouped["brier"]["low"]


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
