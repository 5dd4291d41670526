import json
from dataclasses import replace

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops
from PIL import Image
from typer.testing import CliRunner

from benchmarks.promotion.cli import compare_detectors
from benchmarks.promotion.measure import choose_faces
from benchmarks.studies.small import SIZE, small_contract, write_small_bundle
from edge_runtime.command import command_app
from edge_runtime.model.contract import PixelRecipe
from train.evaluation.evaluation import open_subject
from train.evaluation.training_faces import face_mark


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """Faces that the small network can tell apart: bluish real ones of two sources, reddish fakes."""
    folder, generator = tmp_path_factory.mktemp("faces"), np.random.default_rng(1)
    for name, tint in (("real", (0, 0, 60)), ("fake", (60, 0, 0))):
        for source in ("door", "hall"):
            (folder / source / name).mkdir(parents=True)
            for number in range(20):
                pixels = generator.integers(0, 190, (48, 48, 3)) + np.asarray(tint)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / source / name / f"{number:02}.png")
    return folder


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    return write_small_bundle(tmp_path_factory.mktemp("old") / "bundle")


def compare(*words):
    return CliRunner().invoke(command_app(compare_detectors), [*map(str, words), "--bootstrap", "100"])


def blueness():
    """The small network with its answers exchanged."""
    pixels = ops.parameter([1, 3, SIZE, SIZE], np.float32, name="pixels")
    pooled = ops.reduce_mean(pixels, ops.constant(np.array([2, 3])), keep_dims=False)
    weights = np.array([[2, 0, -2], [-2, 0, 2]], np.float32)
    return ov.Model([ops.matmul(pooled, ops.constant(weights), False, True)], [pixels], "blueness")


@pytest.mark.slow
def test_same_network_is_promoted(old, faces, tmp_path):
    new = write_small_bundle(tmp_path / "new", small_contract(version="1.5.0"))
    words = ["--data", faces / "door", "--data", faces / "hall", "--out", tmp_path / "out", "--rounds", 2]
    done = compare(old, new, *words, "--seconds", 0.1, "--allow", "rate=0.9")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("promoted: no worse on 80 faces")
    assert len(done.stdout.splitlines()) == 1
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert (found["promoted"], found["new"]["version"], found["new"]["precision"]) == (True, "1.5.0", "int8")
    assert {gate["figure"] for gate in found["gates"]} == {"auc", "error", "coverage", "ece", "rate", "memory"}
    rate = next(gate for gate in found["gates"] if gate["figure"] == "rate")
    assert rate["old"] > 0
    assert rate["new"] > 0
    assert "promoted" in (tmp_path / "out" / "comparison.md").read_text().casefold()
    assert (tmp_path / "out" / "comparison.html").is_file()


@pytest.mark.slow
def test_worse_network_is_refused(old, faces, tmp_path):
    new = write_small_bundle(tmp_path / "new", network=blueness())
    done = compare(old, new, "--data", faces / "door", "--out", tmp_path / "out", "--rounds", 1, "--seconds", 0.1)
    assert done.exit_code == 1, done.output
    assert done.stdout.startswith("not promoted: all faces: AUC is worse by 1.000")
    assert json.loads((tmp_path / "out" / "comparison.json").read_text())["promoted"] is False


@pytest.mark.slow
def test_slower_network_is_refused(old, faces, tmp_path):
    """The same answers from a network of 30 times as many pixels."""
    contract = small_contract(input_size=1024, pixels=PixelRecipe(resize_to=1024))
    new = write_small_bundle(tmp_path / "new", contract)
    allow = [word for name in ("auc", "error", "coverage", "ece", "memory") for word in ("--allow", f"{name}=1")]
    words = ["--data", faces / "door", "--out", tmp_path / "out", "--rounds", 2, "--seconds", 0.2]
    done = compare(old, new, *words, *allow)
    assert done.exit_code == 1, done.output
    assert "rate capped to SSE4.2 is worse by" in done.stdout


def test_one_class_is_refused(old, faces, tmp_path):
    for face in (faces / "door").glob("fake/*.png"):
        target = tmp_path / "one_class" / "fake" / face.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(face.read_bytes())
    done = compare(old, old, "--data", tmp_path / "one_class", "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert len(done.output.strip().splitlines()) == 1


def test_known_faces_are_left_out(old, faces):
    subject = open_subject(old)
    every = choose_faces([faces / "door", faces / "hall", faces / "door"], [subject])
    assert (len(every.faces), every.trained) == (80, 0)
    learned = frozenset(face_mark(face) for face in every.faces[:30])
    kept = choose_faces([faces / "door", faces / "hall"], [subject, replace(subject, trained=learned)])
    assert (kept.trained, kept.faces) == (30, every.faces[30:])


def test_missing_detector_is_named(old, faces, tmp_path):
    done = compare(old, tmp_path / "none", "--data", faces / "door", "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "none" in done.output
