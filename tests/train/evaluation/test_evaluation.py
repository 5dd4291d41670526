import json
import re
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.errors import BundleError
from edge_runtime.model.bundle import Manifest
from edge_runtime.model.contract import Calibration
from train.commands.console import tell_evaluation
from train.commands.evaluate import EvaluationOptions, evaluate_detector
from train.data.build import load_data
from train.data.degrade import Condition
from train.evaluation.evaluation import (
    Judged,
    choose_split,
    count_look,
    judge_faces,
    open_subject,
    risk_by_coverage,
    robustness_row,
    score_alarms,
    slice_figures,
    summarize,
)
from train.evaluation.logits import checkpoint_logits, judge
from train.evaluation.seen import TRAINING_FACES, among
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
    return Judged(tuple(records), logits, Calibration(1.0, 0.3, 0.7, 0.5, True))


def test_a_checkpoint_gives_logits_for_every_face(records, tiny_checkpoint):
    done = []
    logits = checkpoint_logits(tiny_checkpoint, records, progress=done.append)
    assert logits.shape == (48, 2)
    assert np.isfinite(logits).all()
    assert sum(done) == 48


def test_several_crops_are_averaged(records, subject):
    contract = subject.contract.replace(pixels=replace(subject.contract.pixels, crops=5))

    def mean_of_red(pixels):
        red = pixels[..., 0].mean((1, 2))
        return np.stack([red, -red], 1)

    one = judge(mean_of_red, contract, records[:3])
    from edge_runtime.pixels.pictures import read_picture
    from edge_runtime.pixels.preprocess import face_pixels

    for row, face in zip(one, records[:3], strict=True):
        crops = face_pixels(read_picture(face.path), None, contract)
        assert crops.shape[0] == 5
        assert row[0] == pytest.approx(crops[..., 0].mean(), rel=1e-5)


def test_a_picture_that_went_away_is_named_and_the_others_are_judged(make_faces, subject):
    records = load_data(make_faces()).records
    records[3].path.unlink()
    found = judge_faces(subject, records)
    assert len(found.faces) == len(records) - 1
    assert found.unreadable == (records[3].path,)


def test_the_test_split_of_a_catalog_and_all_of_a_plain_folder_are_judged(faces, tmp_path):
    catalog = load_data(faces)
    catalog.write(tmp_path / "catalog.csv")
    assert choose_split(faces, catalog, "auto") == "all"
    assert choose_split(tmp_path, catalog, "auto") == "test"
    assert choose_split(tmp_path, catalog, "valid") == "valid"
    assert choose_split(tmp_path, load_data(faces, split="80/20"), "auto") == "valid"


def test_a_swap_is_drawn_together_with_the_people_in_it(records):
    people = ["000", "000+003", "003", "007"]
    groups = judged([replace(face, identity=person) for face, person in zip(records, people, strict=False)]).groups
    assert groups[0] == groups[1] == groups[2] != groups[3]


def test_scores_that_hardly_vary_raise_an_alarm():
    assert "hardly vary" in score_alarms(np.full(50, 0.4) + np.linspace(0, 0.001, 50))[0]
    assert "same answer" in score_alarms(np.linspace(0.6, 0.9, 50))[0]
    assert score_alarms(np.linspace(0, 1, 50)) == []


def save_trained(place, tiny_checkpoint, faces, **where):
    """Write the tiny checkpoint as one that was trained on the catalog `faces`."""
    checkpoint = load_checkpoint(tiny_checkpoint)
    contract = checkpoint.contract.replace(data=faces.fingerprint)
    save_checkpoint(place, load_model(checkpoint), contract, **where)


def test_faces_that_were_trained_on_are_told(records, subject, tmp_path, tiny_checkpoint, faces):
    place, catalog = tmp_path / "best.pth", load_data(faces)
    save_trained(place, tiny_checkpoint, catalog)
    catalog.write(tmp_path / "catalog.csv")
    seen = among(open_subject(place).trained, records)
    assert {face.sha256 for face in seen} == {face.sha256 for face in catalog.split("train")}
    assert among(subject.trained, records) == []


def test_a_checkpoint_that_was_copied_knows_its_training_faces_by_the_catalog_it_was_trained_on(
    records, tmp_path, tiny_checkpoint, faces
):
    catalog = load_data(faces)
    (tmp_path / "copy").mkdir()
    place, run = tmp_path / "copy" / "model.pth", tmp_path / "run" / "catalog.csv"
    save_trained(place, tiny_checkpoint, catalog, catalog=str(run))
    assert among(open_subject(place).trained, records) == []
    catalog.write(run)
    load_data(faces, seed=1).write(place.with_name("catalog.csv"))
    seen = among(open_subject(place).trained, records)
    assert {face.sha256 for face in seen} == {face.sha256 for face in catalog.split("train")}


def test_a_bundle_knows_its_training_faces_by_its_list(records, subject, tmp_path):
    text = "".join(f"{face.sha256[:16]}\n" for face in records[:5])
    (tmp_path / TRAINING_FACES).write_text(text)
    files = {"int8/model.xml": "0" * 64, "int8/model.bin": "0" * 64}
    for listed, count in ({}, 0), ({TRAINING_FACES: sha256(text.encode()).hexdigest()}, 5):
        (tmp_path / "model.json").write_text(Manifest(subject.contract, {**files, **listed}).to_json())
        assert among(open_subject(tmp_path).trained, records) == list(records[:count])
    (tmp_path / TRAINING_FACES).write_text("")
    with pytest.raises(BundleError, match=r"training_faces.txt was changed"):
        open_subject(tmp_path)


def test_an_evaluation_tells_how_many_of_its_faces_were_trained_on(make_faces, tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    data = make_faces()
    catalog = load_data(data)
    save_trained(tmp_path / "best.pth", tiny_checkpoint, catalog)
    catalog.write(tmp_path / "catalog.csv")
    trained = catalog.split("train")
    trained[0].path.unlink()
    evaluation = evaluate_detector(tmp_path / "best.pth", data, tmp_path / "out", EvaluationOptions(bootstrap=10))
    told = f"{len(trained) - 1} of the 23 judged faces were trained on"
    assert any(alarm.startswith(told) for alarm in evaluation.alarms)


def test_every_look_at_the_same_faces_is_counted(records, subject, tmp_path):
    assert [count_look(records, subject, tmp_path) for _ in range(3)] == [1, 2, 3]
    assert count_look(records[:10], subject, tmp_path) == 1
    assert count_look(records[::-1], subject, tmp_path) == 4


def test_slices_have_figures_of_their_own(records):
    faces = [
        replace(face, generator=("", "old", "new")[face.label + (face.label and index % 2)], source="ab"[index % 2])
        for index, face in enumerate(records)
    ]
    rows = {f"{row['by']}: {row['name']}": row for row in slice_figures(judged(faces * 3), 20)}
    assert set(rows) == {"source: a", "source: b", "generator: old", "generator: new"}
    assert rows["generator: old"]["real"] == 0
    assert 0.5 < rows["generator: old"]["auc"]["value"] <= 1.0


def test_every_source_has_the_figures_that_accuracy_hides_with_intervals(records):
    faces = [replace(face, source="ab"[index % 2]) for index, face in enumerate(records)]
    for row in slice_figures(judged(faces * 3), 20):
        for name in ("auc", "average_precision", "eer", "tpr_at_1_fpr", "tpr_at_5_fpr"):
            assert row[name]["low"] <= row[name]["value"] <= row[name]["high"]
        assert row["auc"]["low"] < row["auc"]["high"]


def test_a_detector_that_calls_all_faces_of_a_source_fake_is_told_apart_from_a_blind_one(records, subject, capsys):
    separated = judged(records, separation=1.2)
    found = replace(separated, logits=separated.logits + np.float32([-2.25, 2.25]))
    evaluation = summarize(subject, found, {"path": "x", "split": "test", "left_out": {}}, bootstrap=20)
    assert evaluation.half["accuracy"]["value"] == 0.5
    assert evaluation.figures["auc"]["value"] > 0.9
    assert any("look at the AUC" in alarm for alarm in evaluation.alarms)
    tell_evaluation(evaluation, Path("out"))
    said = capsys.readouterr().out
    for name in ("AUC", "EER", "TPR at 1 % FPR", "TPR at 5 % FPR"):
        assert re.search(rf"{name}\W+[\d.]+ \([\d.]+–[\d.]+\)", said)
    assert "look at the AUC" in said


def test_figures_on_the_validation_split_are_called_that(make_faces, tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    load_data(make_faces()).write(tmp_path / "catalog.csv")
    for split, told in (("valid", True), ("test", False)):
        options = EvaluationOptions(split=split, bootstrap=10)
        evaluation = evaluate_detector(tiny_checkpoint, tmp_path / "catalog.csv", tmp_path / split, options)
        assert any("chosen on validation faces" in alarm for alarm in evaluation.alarms) == told
        assert ("chosen on validation faces" in (tmp_path / split / "report.html").read_text()) == told


def test_leaving_out_the_least_certain_faces_lowers_the_error(records):
    coverage, risk = risk_by_coverage(judged(records * 5, separation=0.7))
    assert coverage[-1] == 1.0
    assert risk[len(risk) // 3] < risk[-1]


def test_a_row_of_the_grid_judges_changed_pictures(records, subject):
    seen = []

    def watch(faces, progress, corrupt):
        from edge_runtime.pixels.pictures import read_picture

        seen.append(corrupt(read_picture(faces[0].path), faces[0]).tobytes())
        return judged(faces).logits

    row = robustness_row(replace(subject, logits=watch), records, Condition(quality=30), 10)
    from edge_runtime.pixels.pictures import read_picture

    assert seen[0] != read_picture(records[0].path).tobytes()
    assert row["name"] == "JPEG 30"
    assert {"auc", "coverage", "fpr", "fnr"} <= set(row)


def test_a_report_without_pictures_holds_no_face_and_its_json_holds_every_figure(records, subject, tmp_path):
    found = judged(records)
    evaluation = summarize(subject, found, {"path": "x", "split": "test", "left_out": {}}, bootstrap=20)
    write_evaluation(tmp_path, evaluation, found, pictures=False)
    assert "Most wrong" not in (tmp_path / "report.html").read_text()
    values = json.loads((tmp_path / "evaluation.json").read_text())
    assert {"accuracy", "auc", "average_precision", "eer", "tpr_at_1_fpr", "tpr_at_5_fpr", "f1", "brier", "ece"} <= set(
        values["figures"]
    )
    assert {"fpr", "fnr", "coverage", "error"} <= set(values["decided"])
    write_evaluation(tmp_path, evaluation, found, pictures=True)
    assert "Most wrong" in (tmp_path / "report.html").read_text()


def test_evaluate_detector_judges_a_folder_from_end_to_end(make_faces, tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    folder = make_faces()
    (folder / "real" / "text.jpg").write_text("hello")
    options = EvaluationOptions(bootstrap=10, robustness="one", robustness_faces=6)
    evaluation = evaluate_detector(tiny_checkpoint, folder, tmp_path / "out", options)
    assert evaluation.data["faces"] == 24
    assert list(evaluation.data["left_out"].values()) == ["not a picture that can be read"]
    assert evaluation.data["looks"] == 1
    assert len(evaluation.robustness) == 13
    assert (tmp_path / "out" / "report.md").is_file()
