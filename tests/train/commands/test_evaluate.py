import csv
import hashlib
import importlib.metadata
import json
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

import pytest
from helpers.bucket import use_bucket

from edge_runtime.errors import UsageError
from train.commands.console import tell_evaluation
from train.commands.evaluate import EvaluationOptions, evaluate_detector
from train.commands.shards import write_shards
from train.data.build import load_data
from train.data.catalog import Catalog
from train.evaluation.attacks import train_washer
from train.evaluation.evaluation import open_subject
from train.models.checkpoint import load_checkpoint, load_model, save_checkpoint

Options = EvaluationOptions


@pytest.fixture(autouse=True)
def _own_state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def test_a_folder_is_judged_from_end_to_end(make_faces, tiny_checkpoint, tmp_path):
    folder = make_faces()
    (folder / "real" / "text.jpg").write_text("hello")
    options = Options(bootstrap=10, robustness="one", robustness_faces=6)
    evaluation = evaluate_detector(tiny_checkpoint, folder, tmp_path / "out", options)
    assert evaluation.data["faces"] == 24
    assert evaluation.data["broken"] == [str(folder / "real" / "text.jpg")]
    assert evaluation.data["looks"] == 1
    assert len(evaluation.robustness) == 13
    for name in ("report.md", "report.html", "evaluation.json"):
        assert (tmp_path / "out" / name).is_file()


@pytest.mark.parametrize("split", ["valid", "test"])
def test_figures_on_validation_carry_a_warning(make_faces, tiny_checkpoint, tmp_path, split):
    load_data(make_faces()).write(tmp_path / "catalog.csv")
    evaluation = evaluate_detector(
        tiny_checkpoint, tmp_path / "catalog.csv", tmp_path / "out", Options(split=split, bootstrap=10)
    )
    warned = any("chosen on validation faces" in alarm for alarm in evaluation.alarms)
    assert warned == (split == "valid")
    assert ("chosen on validation faces" in (tmp_path / "out" / "report.html").read_text()) == warned


def test_the_test_split_of_shards_in_a_bucket_is_judged(make_faces, tiny_checkpoint, tmp_path, monkeypatch):
    packed = write_shards(load_data(make_faces()), tmp_path / "bucket")
    address = Path(use_bucket(tmp_path / "bucket", monkeypatch))
    options = Options(bootstrap=5, pictures=False, scores=tmp_path / "scores.csv")
    evaluation = evaluate_detector(tiny_checkpoint, address, tmp_path / "out", options)
    assert (evaluation.data["split"], evaluation.data["faces"]) == ("test", len(packed.split("test")))
    assert evaluation.data["path"] == str(address)
    with (tmp_path / "scores.csv").open(newline="") as file:
        assert {row["split"] for row in csv.DictReader(file)} == {"test"}


def test_judged_training_faces_are_counted(make_faces, tiny_checkpoint, tmp_path):
    data, checkpoint = make_faces(), load_checkpoint(tiny_checkpoint)
    catalog = load_data(data)
    contract = checkpoint.contract.replace(data=catalog.fingerprint)
    save_checkpoint(tmp_path / "best.pth", load_model(checkpoint), contract)
    catalog.write(tmp_path / "catalog.csv")
    trained = catalog.split("train")
    trained[0].path.unlink()
    evaluation = evaluate_detector(tmp_path / "best.pth", data, tmp_path / "out", Options(bootstrap=10))
    warning = f"{len(trained) - 1} of the 23 judged faces were trained on"
    assert any(alarm.startswith(warning) for alarm in evaluation.alarms)


def test_lost_pictures_do_not_stop_attacks(make_faces, tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("train.evaluation.attacks.train_washer", partial(train_washer, steps=5, side=32))
    catalog = load_data(make_faces())
    catalog.write(tmp_path / "catalog.csv")
    for split in ("train", "test"):
        next(face for face in catalog.split(split) if face.label == 0).path.unlink()
    evaluation = evaluate_detector(
        tiny_checkpoint, tmp_path / "catalog.csv", tmp_path / "out", Options(attacks=True, bootstrap=10)
    )
    assert len(evaluation.robustness) == 5
    assert len(evaluation.data["unreadable"]) == 1
    assert {row["faces"] for row in evaluation.robustness} == {evaluation.data["faces"]}


def test_figures_by_source_and_scores_are_written(make_faces, tiny_checkpoint, tmp_path, capsys):
    folder, scores = make_faces(), tmp_path / "new" / "scores.csv"
    options = Options(bootstrap=5, pairs=["faces:faces"], scores=scores)
    evaluation = evaluate_detector(tiny_checkpoint, folder, tmp_path / "out", options)
    assert [(row["by"], row["name"], row["against"]) for row in evaluation.origins["rows"]] == [
        ("source", "faces", ["faces"]),
        ("generator", "faces", ["faces"]),
    ]
    written = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert written["origins"]["worst"]["generator"]["auc"] == evaluation.figures["auc"]
    assert "Across sources and generators" in (tmp_path / "out" / "report.html").read_text()
    assert len(scores.read_text().splitlines()) == 25
    with scores.open(newline="") as file:
        assert {row["split"] for row in csv.DictReader(file)} == {""}, "the folder has no splits"
    tell_evaluation(evaluation, tmp_path / "out")
    assert "generator faces: against faces, real faces 12, fake faces 12, AUC 0." in capsys.readouterr().out
    with pytest.raises(UsageError, match=r"--scores .*is a directory"):
        evaluate_detector(tiny_checkpoint, folder, tmp_path / "out", Options(scores=tmp_path))


def test_a_report_can_be_checked(make_faces, tiny_checkpoint, tmp_path, monkeypatch):
    folder = make_faces()
    monkeypatch.setattr("sys.argv", ["/usr/bin/evaluate-detector", "best.pth", "my faces"])
    evaluation = evaluate_detector(tiny_checkpoint, folder, tmp_path / "out", Options(bootstrap=7))
    written = json.loads((tmp_path / "out" / "evaluation.json").read_text())["method"]
    assert written == evaluation.method
    assert written["model_sha256"] == hashlib.sha256(tiny_checkpoint.read_bytes()).hexdigest()
    assert written["data_fingerprint"] == Catalog(load_data(folder).records).fingerprint
    assert written["command"] == "evaluate-detector best.pth 'my faces'"
    assert written["versions"]["torch"] == importlib.metadata.version("torch")
    assert abs(datetime.now(timezone.utc) - datetime.fromisoformat(written["date"].replace("Z", "+00:00"))).days == 0
    assert (written["resamples"], written["ece"]) == (7, "15 bins of equal width")
    assert written["resamples_of_slices_and_robustness"] == 7
    assert written["data_fingerprint"] in (tmp_path / "out" / "report.md").read_text()


def test_unusable_options_are_refused_first(tiny_checkpoint, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="--robustness some"):
        evaluate_detector(tmp_path, tmp_path, tmp_path / "out", Options(robustness="some"))
    with pytest.raises(UsageError, match=r"--out .*file"):
        evaluate_detector(tiny_checkpoint, tmp_path / "nowhere", tmp_path / "file", Options())
    bundle = replace(open_subject(tiny_checkpoint), precision="int8")
    monkeypatch.setattr("train.commands.evaluate.open_subject", lambda *given, **options: bundle)
    with pytest.raises(UsageError, match="--attacks needs a checkpoint"):
        evaluate_detector(tmp_path, tmp_path / "nowhere", tmp_path / "out", Options(attacks=True))
