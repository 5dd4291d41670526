"""`evaluate-detector` on videos: real files and folders of frames through a tiny network."""

import csv
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.drawn_face import draw_face
from helpers.videos import write_video
from PIL import Image

from benchmarks.studies.small import small_contract, write_small_bundle
from edge_runtime.detector import Detector
from edge_runtime.errors import DataError, UsageError
from edge_runtime.judging.summary import FileVerdicts, logit
from edge_runtime.model.bundle import BUNDLE_SIGNATURE, MANIFEST, Bundle
from train.cli import evaluate_detector
from train.commands.evaluate import EvaluationOptions
from train.commands.evaluate_videos import evaluate_videos
from train.evaluation.calibrate import upper_quantile
from train.evaluation.method import contents, contents_fingerprint
from train.evaluation.videos import FrameFolder, list_videos, write_video_thresholds

FRAMES = 16


@pytest.fixture
def bundle(tmp_path) -> Path:
    return write_small_bundle(tmp_path / "detector", small_contract())


def write_frames(folder: Path, red: int, count: int = FRAMES) -> None:
    folder.mkdir(parents=True)
    random = np.random.default_rng(red)
    for number in range(count):
        pixels = np.full((32, 32, 3), (red, 120, 255 - red)) + random.integers(-20, 21, (32, 32, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.bmp")


@pytest.fixture
def clips(tmp_path) -> Path:
    """20 videos of each class as folders of frames; the two classes overlap."""
    for number in range(20):
        write_frames(tmp_path / "clips/real" / f"{number}", 70 + 4 * number)
        write_frames(tmp_path / "clips/fake" / f"{number}", 120 + 4 * number)
    return tmp_path / "clips"


@pytest.mark.slow
def test_thresholds_for_videos_are_fitted_written_and_used(clips, bundle, tmp_path):
    model = (bundle / MANIFEST).read_bytes()
    before = {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file() and path.name != MANIFEST}
    options = EvaluationOptions(bootstrap=50, fit_video=True, scores=tmp_path / "scores.csv")
    (bundle / BUNDLE_SIGNATURE).write_text("of the former manifest")
    evaluation = evaluate_videos(bundle, clips, tmp_path / "out", options)
    assert not (bundle / BUNDLE_SIGNATURE).exists()
    assert "setup-board sign" in evaluation.notes[-1]

    with (tmp_path / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    reals = np.array([float(row["score"]) for row in rows if row["label"] == "real"])
    fakes = np.array([float(row["score"]) for row in rows if row["label"] == "fake"])
    assert (len(reals), len(fakes)) == (20, 20)
    assert evaluation.method["model_sha256"] == hashlib.sha256(model).hexdigest()
    assert evaluation.method["data_fingerprint"] == contents_fingerprint(
        [(contents(path), int(path.parent.name == "fake")) for path in clips.glob("*/*")]
    )
    pairs = (fakes[:, None] > reals).mean()
    assert evaluation.figures["auc"]["value"] == pytest.approx(pairs)
    assert 0.85 < pairs < 1.0

    assert set(evaluation.fitted) == {"fp32", "int8"}
    fitted = Bundle.open(bundle).contract.calibration("int8")
    odds = np.array([logit(score) for score in reals])
    assert logit(fitted.video_high) == pytest.approx(upper_quantile(odds, 0.01), abs=1e-4)
    assert fitted.video_high > reals.max()
    assert fitted.video_low < fakes.min()
    assert (fitted.low, fitted.high) == (0.3, 0.7)
    Bundle.open(bundle).check()
    assert {path: path.read_bytes() for path in before} == before

    again = evaluate_videos(bundle, clips, tmp_path / "again", EvaluationOptions(bootstrap=50))
    assert (again.calibration["low"], again.calibration["high"]) == (fitted.video_low, fitted.video_high)
    assert again.decided["fpr"]["value"] == again.decided["fnr"]["value"] == 0.0
    written = json.loads((tmp_path / "again/evaluation.json").read_text())
    assert written["figures"]["eer"]["value"] == again.figures["eer"]["value"]
    assert "Each video counts once" in (tmp_path / "again/report.md").read_text()

    # The detector that judges a video reads them too.
    detector = Detector(bundle, device="CPU", precision="int8", faces="off")
    files = FileVerdicts(detector.bundle.contract, "")
    for judged in detector.pipeline([FrameFolder(clips / "real/19")]).results():
        files.add(judged)
    (video,) = files.videos()
    assert video.verdict.value == "uncertain"
    assert video.score == pytest.approx(next(float(row["score"]) for row in rows if row["file"].endswith("real/19")))


def test_too_few_videos_change_nothing(bundle, tmp_path):
    for number in range(2):
        write_frames(tmp_path / "clips/real" / f"{number}", 60)
        write_frames(tmp_path / "clips/fake" / f"{number}", 190)
    before = (bundle / MANIFEST).read_text()
    with pytest.raises(DataError, match="thresholds need 20 judged videos of each class, here are 2 real and 2 fake"):
        evaluate_videos(bundle, tmp_path / "clips", tmp_path / "out", EvaluationOptions(bootstrap=5, fit_video=True))
    assert (bundle / MANIFEST).read_text() == before


def test_thresholds_of_a_bundle_that_is_gone_are_not_lost_in_silence(bundle):
    opened = Bundle.open(bundle)
    assert write_video_thresholds(opened, {}) is False
    (bundle / BUNDLE_SIGNATURE).write_text("of the former manifest")
    assert write_video_thresholds(opened, {}) is True
    shutil.rmtree(bundle)
    with pytest.raises(UsageError, match=r"can't be written \(No such file"):
        write_video_thresholds(opened, {})


def test_a_vanished_video_is_named_before_any_is_judged(bundle, tmp_path, monkeypatch):
    for label in ("real", "fake"):
        write_frames(tmp_path / "clips" / label / "a", 60)
    before = contents(tmp_path / "clips/real/a")
    (tmp_path / "clips/real/a/.DS_Store").write_bytes(b"x")
    (tmp_path / "clips/real/a/notes.txt").write_bytes(b"x")
    assert contents(tmp_path / "clips/real/a") == before
    listed = list_videos(tmp_path / "clips")
    monkeypatch.setattr("train.commands.evaluate_videos.list_videos", lambda data: listed)
    shutil.rmtree(tmp_path / "clips/fake/a")
    monkeypatch.setattr("train.commands.evaluate_videos.judge_videos", None)
    with pytest.raises(DataError, match=r"fake/a: can't be read"):
        evaluate_videos(bundle, tmp_path / "clips", tmp_path / "out", EvaluationOptions(bootstrap=5))


@pytest.mark.slow
def test_video_files_are_found_judged_and_named(face_model, tmp_path, capsys):
    bundle = write_small_bundle(tmp_path / "detector", small_contract(), ("int8",), face_model)
    for label, skin in (("real", (90, 120, 200)), ("fake", (220, 120, 60))):
        (tmp_path / "clips" / label).mkdir(parents=True)
        write_video(tmp_path / "clips" / label / "a.avi", [draw_face(skin, (300, 240), 110)] * 20)
    write_frames(tmp_path / "clips/real/short", 60, count=5)
    (tmp_path / "clips/fake/broken.mp4").write_bytes(b"no video")
    code = evaluate_detector(bundle, tmp_path / "clips", out=tmp_path / "out", bootstrap=5)
    written = json.loads((tmp_path / "out/evaluation.json").read_text())
    assert [row["verdict"] for row in written["videos"] if row["path"].endswith(".avi")] == ["real", "fake"]
    assert written["data"]["unjudged"] == 1
    assert [Path(path).name for path in written["data"]["unreadable"]] == ["broken.mp4"]
    assert code == 1
    assert "1 without a score" in capsys.readouterr().out


def test_frames_are_in_the_order_of_their_numbers(tmp_path):
    write_frames(tmp_path / "v", 60, count=11)
    assert [path.stem for path in FrameFolder(tmp_path / "v").files()] == [str(number) for number in range(11)]


def test_what_is_no_video_is_one_line(bundle, clips, tmp_path):
    with pytest.raises(UsageError, match="give a bundle"):
        evaluate_videos(bundle / MANIFEST, clips, tmp_path / "out", EvaluationOptions())
    with pytest.raises(UsageError, match="are for pictures"):
        evaluate_videos(bundle, clips, tmp_path / "out", EvaluationOptions(by="source"))
    shutil.copy(clips / "real/0/0.bmp", clips / "real")
    with pytest.raises(DataError, match="holds pictures; put the frames of each video into a folder"):
        list_videos(clips)
    with pytest.raises(DataError, match="holds no real videos"):
        list_videos(tmp_path)
