import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import edge_runtime
from benchmarks.studies.small import write_small_bundle
from edge_runtime import Detector
from edge_runtime.detector import WHOLE_PICTURES
from edge_runtime.errors import BundleError, EdgeError, PictureError, SourceError, UsageError
from edge_runtime.inference.classifier import compile_network
from edge_runtime.judging.tracking import TrackNumbers
from edge_runtime.model.contract import DEMO_NOTICE, Framing, Verdict
from edge_runtime.sources import Frame, open_sources
from edge_runtime.sources.opencv import cv2
from edge_runtime.sources.paced import PacedVideo


@pytest.fixture(scope="module")
def detector(bundle_path):
    return Detector(bundle_path, faces="off")


def clip(path, pictures):
    codec = cv2.VideoWriter.fourcc(*("MJPG" if path.suffix == ".avi" else "mp4v"))
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, codec, 25.0, pictures[0].size)
    for picture in pictures:
        writer.write(np.asarray(picture)[:, :, ::-1])
    writer.release()
    return path


def test_pictures_of_any_kind_are_judged_alike(detector, red, tmp_path):
    path = tmp_path / "a.png"
    red.save(path)
    given = [red, np.asarray(red), str(path), path, path.read_bytes(), red.convert("RGBA")]
    scores = [detector.detect(image).faces[0].score for image in given]
    assert scores == [scores[0]] * len(given)
    assert detector.detect(path).source == str(path)


def test_networks_of_few_threads_are_not_bound_to_the_first_cores(bundle_path, monkeypatch):
    compiled = []

    def compile_and_keep(*given, **properties):
        compiled.append(compile_network(*given, **properties))
        return compiled[-1]

    monkeypatch.setattr("edge_runtime.inference.classifier.compile_network", compile_and_keep)
    Detector(bundle_path, faces="off", threads=1)
    assert [network.get_property("ENABLE_CPU_PINNING") for network in compiled] == [False]


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), b"no picture", "gone.jpg"])
def test_other_things_are_refused(detector, image):
    with pytest.raises(PictureError):
        detector.detect(image)


def test_pictures_and_videos_are_watched_together(detector, red, blue, tmp_path):
    red.save(tmp_path / "a.png")
    path = clip(tmp_path / "a.avi", [red] * 5 + [blue] * 5)
    results = list(detector.watch(tmp_path / "a.png", str(path)))
    assert [result.source for result in results].count(str(tmp_path / "a.png")) == 1
    frames = [result for result in results if result.source == str(path)]
    assert [result.frame for result in frames] == list(range(10))
    first, last = frames[0].faces[0], frames[-1].faces[0]
    # The cut begins a new track, so that the two colours are not averaged.
    assert [(face.verdict, face.track) for face in (first, last)] == [(Verdict.FAKE, 1), (Verdict.REAL, 2)]
    with pytest.raises(SourceError, match=r"gone\.mp4"):
        list(detector.watch("gone.mp4"))


def test_live_sources_are_judged_only_where_it_counts_unless_told_otherwise(bundle_path, red, tmp_path):
    path = clip(tmp_path / "a.avi", [red] * 75)

    def judged(always, live):
        sources = open_sources([str(path)])
        watched = Detector(bundle_path, faces="off", always=always).watch(
            *map(PacedVideo, sources) if live else sources
        )
        return [face for result in watched for face in result.faces]

    faces = judged(always=False, live=True)
    assert any(face.carried_s is not None and face.score is None for face in faces)
    assert {face.verdict for face in faces[5:]} == {Verdict.FAKE}
    for exact in (judged(always=True, live=True), judged(always=False, live=False)):
        assert all(face.carried_s is None and face.score > 0.9 for face in exact)


def test_detectors_that_follow_each_other_reuse_no_track_number(bundle_path, red):
    """With and without attention; each source has numbers of its own, from 1."""
    source, numbers, found = SimpleNamespace(live=True, still=False), TrackNumbers(), []
    for always in (False, True, False):
        judges = Detector(bundle_path, device="CPU", faces="off", always=always).judges([source], numbers)
        for name in ("front", "back"):
            frame = Frame(name, 0, lambda: red, live=True)
            found += [(name, face.track) for face in judges[1].of_frame(judges[0](frame)).faces]
    assert found == [(name, number) for number in (1, 2, 3) for name in ("front", "back")]


def test_the_bundle_is_searched_like_the_commands(bundle_path, monkeypatch):
    monkeypatch.setenv("DEEPFAKE_EDGE_MODEL", str(bundle_path))
    assert Detector().bundle.path == bundle_path


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"faces": "maybe"}, "faces is 'maybe'"),
        ({"precision": "fp16"}, "holds no fp16"),
        ({"faces": "tiled"}, "face model"),
    ],
)
def test_impossible_options_are_refused(bundle_path, options, names):
    with pytest.raises((UsageError, BundleError), match=names):
        Detector(bundle_path, **options)


def test_the_whole_picture_is_a_face_only_on_request(tmp_path, make_bundle, bundle_path, red):
    framed = make_bundle(tmp_path / "detector", framing=Framing.DETECTED)
    with pytest.raises(BundleError, match=r"--face-model, or give --faces off"):
        Detector(framed)
    assert Detector(framed, faces="off").detect(red).faces[0].box == (0, 0, 64, 64)
    with pytest.raises(BundleError, match=r"--face-model, or give --faces off"):
        next(Detector(bundle_path).watch(clip(tmp_path / "a.avi", [red])))


def test_scenes_taken_as_faces_bring_advice(bundle_path, detector, red, tmp_path):
    red.save(tmp_path / "a.png")
    stills, moving = open_sources([str(tmp_path)]), open_sources([str(clip(tmp_path / "a.avi", [red]))])
    assert Detector(bundle_path).advice([*moving, *stills]) == WHOLE_PICTURES
    assert Detector(bundle_path).advice(moving) is detector.advice(stills) is None


def test_a_demonstration_model_is_named(demo_path, red):
    detector = Detector(demo_path)
    assert detector.notice == detector.detect(red).notice == DEMO_NOTICE


def test_errors_are_one_printable_line():
    assert str(EdgeError("a\nb\x1b[2J\udce9.jpg: not found")) == r"a b\x1b[2J\udce9.jpg: not found"


def test_the_contract_alone_imports_little():
    watched = "{'openvino', 'PIL', 'cv2', 'numpy', 'typer'}"
    code = f"import sys, edge_runtime.model.contract\nprint({watched} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_the_public_names_are_these():
    assert edge_runtime.__all__ == ["Detector"]
    with pytest.raises(AttributeError, match="no attribute"):
        _ = edge_runtime.Nothing


def test_the_documented_examples_run(face_model, red, tmp_path, monkeypatch, capsys):
    text = (Path(__file__).resolve().parents[2] / "docs" / "runtime.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert examples
    write_small_bundle(tmp_path / "detector", face_model=face_model)
    red.save(tmp_path / "face.jpg")
    clip(tmp_path / "door.mp4", [red] * 3)
    monkeypatch.chdir(tmp_path)
    for example in examples:
        exec(compile(example, "docs/runtime.md", "exec"), {})
    assert "fake" in capsys.readouterr().out
