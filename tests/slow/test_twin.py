"""The whole runtime with the board's instruction set: pictures, a video and the face stage give the capped scores."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.drawn_face import draw_face

from benchmarks.studies.small import write_small_bundle
from board_setup.workstation import twin

FAKE, REAL = (225, 150, 120), (150, 160, 215)
"""The small network calls red pictures fake and blue ones real."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, face_model: Path) -> Path:
    return write_small_bundle(tmp_path_factory.mktemp("bundle") / "detector", face_model=face_model)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> list[Path]:
    """Two pictures and a video of a drawn face."""
    folder = tmp_path_factory.mktemp("inputs")
    draw_face(FAKE, (300, 240), 100).save(folder / "fake.png")
    draw_face(REAL, (320, 240), 100).save(folder / "real.png")
    video = cv2.VideoWriter(str(folder / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (640, 480))
    for number in range(4):
        video.write(np.asarray(draw_face(FAKE, (300 + 20 * number, 240), 100))[:, :, ::-1])
    video.release()
    return [folder / "fake.png", folder / "real.png", folder / "clip.avi"]


def judge(bundle: Path, inputs: list[Path], precision: str, out: Path, *options: str) -> list[dict]:
    """Run edge-detect on the twin and return what it wrote about every face of a frame."""
    detect = ["edge-detect", *map(str, inputs), "--model", str(bundle), "--precision", precision, "--jsonl", str(out)]
    command = [sys.executable, "-m", "board_setup.cli", "twin", *options, "--", *detect]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    return [face for line in lines if line["state"] != "summary" for face in line["faces"]]


@pytest.mark.skipif(shutil.which(twin.QEMU) is None, reason="needs qemu-user")
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_twin_and_capped_run_agree(bundle, inputs, precision, tmp_path) -> None:
    exact = judge(bundle, inputs, precision, tmp_path / "exact.jsonl")
    capped = judge(bundle, inputs, precision, tmp_path / "capped.jsonl", "--capped")
    assert len(exact) == 6
    assert [face["box"] for face in exact] == [face["box"] for face in capped]
    assert [face["score"] for face in exact] == pytest.approx([face["score"] for face in capped], abs=1e-6)
    assert {face["verdict"] for face in exact} == {"real", "fake"}
