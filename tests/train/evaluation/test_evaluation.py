import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.errors import BundleError
from edge_runtime.model.bundle import Manifest
from edge_runtime.model.contract import Calibration
from edge_runtime.pixels.pictures import read_picture
from edge_runtime.pixels.preprocess import face_pixels
from train.commands.console import tell_evaluation
from train.data.build import load_data
from train.evaluation.evaluation import (
    JudgedFaces,
    choose_split,
    judge_faces,
    open_subject,
    risk_by_coverage,
    score_alarms,
    slice_figures,
    summarize,
)
from train.evaluation.logits import checkpoint_logits, judge
from train.evaluation.times_judged import count_judged
from train.evaluation.training_faces import TRAINING_FACES, among
from train.models.checkpoint import load_checkpoint, load_model, save_checkpoint
from train.report.evaluation import write_evaluation


@pytest.fixture(scope="module")
def records(faces):
    return load_data(faces).records


@pytest.fixture(scope="module")
def subject(tiny_checkpoint):
    return open_subject(tiny_checkpoint)


def judged(records, separation=2.0):
    random = np.random.default_rng(0)
    labels = np.array([face.label for face in records])
    margin = separation * (2 * labels - 1) + random.normal(0, 1, len(records))
    logits = np.stack([-margin / 2, margin / 2], 1).astype(np.float32)
    return JudgedFaces(tuple(records), logits, Calibration(low=0.3, high=0.7, fitted=True))


def summary(subject, found):
    return summarize(subject, found, {"path": "x", "split": "test", "left_out": {}}, bootstrap=20)


def test_a_checkpoint_gives_logits_for_every_face(records, tiny_checkpoint):
    done = []
    logits = checkpoint_logits(tiny_checkpoint, records, progress=done.append)
    assert logits.shape == (48, 2)
    assert np.isfinite(logits).all()
    assert sum(done) == 48


def test_logits_of_several_crops_are_averaged(records, subject):
    contract = subject.contract.replace(pixels=replace(subject.contract.pixels, crops=5))

    def mean_red(pixels):
        red = pixels[..., 0].mean((1, 2))
        return np.stack([red, -red], 1)

    for row, face in zip(judge(mean_red, contract, records[:3]), records[:3], strict=True):
        crops = face_pixels(read_picture(face.path), None, contract)
        assert crops.shape[0] == 5
        assert row[0] == pytest.approx(crops[..., 0].mean(), rel=1e-5)


def test_unreadable_pictures_are_named(make_faces, subject):
    records = load_data(make_faces()).records
    records[3].path.unlink()
    found = judge_faces(subject, records)
    assert found.faces == (*records[:3], *records[4:])
    assert found.unreadable == (records[3].path,)


def test_the_automatic_split_is_held_out(faces, make_faces, tmp_path):
    catalog = load_data(faces)
    catalog.write(tmp_path / "catalog.csv")
    assert choose_split(faces, catalog, "auto") == "all"
    assert choose_split(tmp_path, catalog, "auto") == "test"
    assert choose_split(tmp_path, catalog, "valid") == "valid"
    assert choose_split(tmp_path, load_data(faces, split="80/20"), "auto") == "valid"
    make_faces("split/train", count=2)
    make_faces("split/validation", count=2, first=500)
    assert choose_split(tmp_path / "split", load_data(tmp_path / "split"), "auto") == "valid"


def test_scores_that_hardly_vary_raise_an_alarm():
    assert "hardly vary" in score_alarms(np.full(50, 0.4) + np.linspace(0, 0.001, 50))[0]
    assert "same answer" in score_alarms(np.linspace(0.6, 0.9, 50))[0]
    assert score_alarms(np.linspace(0, 1, 50)) == []


def test_a_copied_checkpoint_finds_its_training_faces(records, subject, tmp_path, tiny_checkpoint, faces):
    catalog, checkpoint = load_data(faces), load_checkpoint(tiny_checkpoint)
    contract = checkpoint.contract.replace(data=catalog.fingerprint)
    place, run = tmp_path / "copy" / "model.pth", tmp_path / "run" / "catalog.csv"
    place.parent.mkdir()
    save_checkpoint(place, load_model(checkpoint), contract, catalog=str(run))
    assert among(open_subject(place).trained, records) == []
    catalog.write(run)
    load_data(faces, seed=1).write(place.with_name("catalog.csv"))
    assert among(open_subject(place).trained, records) == list(catalog.split("train"))
    assert among(subject.trained, records) == []


def test_a_bundle_lists_its_training_faces(records, subject, tmp_path):
    text = "".join(f"{face.sha256[:16]}\n" for face in records[:5])
    (tmp_path / TRAINING_FACES).write_text(text)
    files = {"int8/model.xml": "0" * 64, "int8/model.bin": "0" * 64}
    for listed, count in ({}, 0), ({TRAINING_FACES: sha256(text.encode()).hexdigest()}, 5):
        (tmp_path / "model.json").write_text(Manifest(subject.contract, {**files, **listed}).to_json())
        assert among(open_subject(tmp_path).trained, records) == list(records[:count])
    (tmp_path / TRAINING_FACES).write_text("")
    with pytest.raises(BundleError, match=TRAINING_FACES):
        open_subject(tmp_path)


def test_every_look_at_the_same_faces_is_counted(records, tmp_path):
    assert [count_judged(records, "model", tmp_path) for _ in range(3)] == [1, 2, 3]
    assert count_judged(records[:10], "model", tmp_path) == 1
    assert count_judged(records[::-1], "other", tmp_path) == 4
    (tmp_path / "file").touch()
    assert count_judged(records, "model", tmp_path / "file") == 1


def test_slices_have_their_own_figures(records):
    faces = [
        replace(face, generator=("", "old", "new")[face.label + (face.label and index % 2)], source="ab"[index % 2])
        for index, face in enumerate(records)
    ]
    rows = {f"{row['by']}: {row['name']}": row for row in slice_figures(judged(faces * 3), 200)}
    assert set(rows) == {"source: a", "source: b", "generator: old", "generator: new"}
    assert rows["generator: old"]["real"] == 0
    for row in rows.values():
        for name in ("auc", "average_precision", "eer", "tpr_at_1_fpr", "tpr_at_5_fpr"):
            assert row[name]["low"] <= row[name]["value"] <= row[name]["high"]
    assert any(row["auc"]["low"] < row["auc"]["value"] < 1.0 for row in rows.values())


def test_face_sizes_are_slices(records):
    sizes = [20, 127, 128, 511, 512, 4000]
    faces = [replace(face, width=side, height=9999) for face, side in zip(records, sizes, strict=False)]
    names = ["0 to 127 pixels", "128 to 255 pixels", "256 to 511 pixels", "512 pixels and more"]
    found = {row["name"]: row["real"] + row["fake"] for row in slice_figures(judged(faces), 0)}
    assert found == {names[0]: 2, names[1]: 1, names[2]: 1, names[3]: 2}


def test_a_shifted_detector_has_auc_but_no_accuracy(records, subject, capsys):
    separated = judged(records, separation=1.2)
    found = replace(separated, logits=separated.logits + np.float32([-2.25, 2.25]))
    evaluation = summary(subject, found)
    assert evaluation.half["accuracy"]["value"] == 0.5
    assert evaluation.figures["auc"]["value"] > 0.9
    assert any("look at the AUC" in alarm for alarm in evaluation.alarms)
    tell_evaluation(evaluation, Path("out"))
    printed = capsys.readouterr().out
    assert "look at the AUC" in printed
    for name in ("AUC", "EER", "TPR at 1 % FPR", "TPR at 5 % FPR"):
        assert name in printed


def test_leaving_out_uncertain_faces_lowers_the_error(records):
    coverage, risk = risk_by_coverage(judged(records * 5, separation=0.7))
    assert coverage[-1] == 1.0
    assert risk[len(risk) // 3] < risk[-1]


def test_a_report_without_pictures_shows_no_face(records, subject, tmp_path):
    found = judged(records)
    evaluation = summary(subject, found)
    write_evaluation(tmp_path, evaluation, found, pictures=False)
    assert "Most wrong" not in (tmp_path / "report.html").read_text()
    values = json.loads((tmp_path / "evaluation.json").read_text())
    assert values["figures"] == evaluation.figures
    assert values["decided"] == evaluation.decided
    write_evaluation(tmp_path, evaluation, found, pictures=True)
    assert "Most wrong" in (tmp_path / "report.html").read_text()
