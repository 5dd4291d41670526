import json
import shutil
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from helpers.bucket import use_bucket
from openvino import opset13 as ops
from PIL import Image
from typer.testing import CliRunner

from benchmarks.promotion.cli import compare_detectors
from benchmarks.promotion.field import read_disagreements
from benchmarks.promotion.measure import faces_to_compare
from benchmarks.promotion.promotion import _precision
from benchmarks.promotion.shadow_cost import shadow_cost
from benchmarks.studies.small import SIZE, small_contract, write_small_bundle
from edge_runtime.command import command_app
from edge_runtime.model.contract import PixelRecipe
from edge_runtime.review.database import ReviewDatabase, ReviewFace, ReviewLabel
from train.commands.shards import write_shards
from train.data.build import load_data
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
def test_pictures_in_tar_shards_are_timed(old, faces, tmp_path, capfd):
    write_shards(load_data(faces / "door"), tmp_path / "shards", 20_000)
    words = ["--data", tmp_path / "shards", "--out", tmp_path / "out", "--rounds", 1, "--seconds", 0.1]
    done = compare(old, old, *words, "--allow", "rate=1", "--allow", "memory=1")
    assert (done.exit_code, done.stdout[:22]) == (0, "promoted: no worse on "), done.output
    rate = next(
        g for g in json.loads((tmp_path / "out" / "comparison.json").read_text())["gates"] if g["figure"] == "rate"
    )
    assert rate["new"] > 0
    assert shadow_cost(old, old, tmp_path / "shards", rounds=1, seconds=0.5) == 0
    assert "median ratio" in capfd.readouterr().out


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
    every = faces_to_compare([faces / "door", faces / "hall", faces / "door"], [subject])
    assert (len(every.faces), every.trained) == (80, 0)
    learned = frozenset(face_mark(face) for face in every.faces[:30])
    kept = faces_to_compare([faces / "door", faces / "hall"], [subject, replace(subject, trained=learned)])
    assert (kept.trained, kept.faces) == (30, every.faces[30:])


@pytest.mark.parametrize("home", [True, False])
def test_only_test_faces_of_an_address_or_home_are_judged(old, faces, tmp_path, monkeypatch, home):
    packed = write_shards(load_data(faces / "door"), tmp_path / "bucket")
    place = Path("~/bucket") if home else Path(use_bucket(tmp_path / "bucket", monkeypatch))
    monkeypatch.setenv("HOME", str(tmp_path))
    chosen = faces_to_compare([place], [open_subject(old)])
    assert {face.split for face in chosen.faces} == {"test"}
    assert chosen.counts == {str(place): len(packed.split("test"))}


def test_bundles_at_home_are_compared_in_one_precision(old, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(old, tmp_path / "old")
    assert _precision(Path("~/old"), None, (Path("~/old"), Path("~/old"))) == "int8"
    assert _precision(Path("~/old"), "fp32", (Path("~/old"), Path("~/old"))) == "fp32"


def test_missing_detector_is_named(old, faces, tmp_path):
    done = compare(old, tmp_path / "none", "--data", faces / "door", "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "none" in done.output


class Field:
    """Disagreements of a shadow in the field, and their reviews."""

    def __init__(self, folder):
        self.lines, self.folder = folder / "disagreements.jsonl", folder
        self.database = ReviewDatabase(folder / "reviews.sqlite", create=True)

    def add(self, count, old, new, label, versions=("1.4.0", "2.0.0")):
        for _ in range(count):
            number = len(self.database.faces())
            name = f"face-20260504T080000{number:03}Z-shadow-0123456789abcdef.png"
            told = [{"model": v, "verdict": verdict} for v, verdict in zip(versions, (old, new), strict=True)]
            line = {"shadow": versions[1], "old": told[0], "new": told[1], "picture": name}
            with self.lines.open("a") as file:
                file.write(json.dumps(line) + "\n")
            face = ReviewFace(
                path=self.folder / f"{name}.age",
                sha256=f"{number:064x}",
                source="door",
                time=datetime(2026, 5, 4, tzinfo=timezone.utc),
                verdict=old,
                score=0.5,
                reason="shadow",
            )
            self.database.add_review(self.database.add_face(face), "ada", ReviewLabel(label))

    @property
    def words(self):
        return ("--disagreements", self.lines, "--reviews", self.database.path)


@pytest.fixture
def field(tmp_path):
    return Field(tmp_path)


@pytest.fixture(scope="module")
def new(tmp_path_factory):
    return write_small_bundle(tmp_path_factory.mktemp("new") / "bundle", small_contract(version="2.0.0"))


def test_field_refuses_a_worse_one(old, new, field, tmp_path):
    field.add(20, "real", "fake", "real")
    done = compare(old, new, *field.words, "--out", tmp_path / "out")
    assert done.exit_code == 1, done.output
    assert done.stdout.startswith("not promoted: the new detector is worse, seen after 8 reviewed disagreements")
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert (found["field"]["state"], found["gates"]) == ("worse", [])


def test_field_promotes_a_better_one(old, new, field, tmp_path):
    field.add(8, "uncertain", "fake", "fake")
    field.add(8, "fake", "real", "real")
    done = compare(old, new, *field.words, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("promoted: the new detector is better")


def test_field_of_other_versions_says_nothing(old, new, field, tmp_path):
    field.add(20, "real", "fake", "real", versions=("1.4.0", "1.9.0"))
    field.add(20, "real", "fake", "unusable")
    with field.lines.open("a") as file:
        file.write('{"shadow": "2.0')
    done = compare(old, new, *field.words, "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert done.stdout.startswith("not promoted: undecided after 0 reviewed disagreements")


def test_field_can_not_tell_equal_versions_apart(old, field, tmp_path):
    field.add(8, "fake", "real", "real", versions=("1.4.0", "1.4.0"))
    done = compare(old, old, *field.words, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "another --version" in " ".join(done.output.split())


def test_odd_line_ends_in_names_are_no_line_ends(field):
    field.add(1, "real", "fake", "real")
    line = field.lines.read_text().replace('"picture"', '"source": "a\u2028b\x85c", "picture"')
    field.lines.write_text(line * 2)
    assert len(read_disagreements([field.lines], "1.4.0", "2.0.0")) == 1


@pytest.mark.slow
def test_field_is_one_of_the_gates(old, new, faces, field, tmp_path):
    words = ["--data", faces / "door", "--out", tmp_path / "out", "--rounds", 1, "--seconds", 0.1, "--allow", "rate=1"]
    assert compare(old, new, *words, *field.words[2:], "--disagreements", old / "model.json").exit_code == 2
    field.add(1, "real", "fake", "real")
    done = compare(old, new, *words, *field.words)
    assert (done.exit_code, done.stdout[:30]) == (0, "promoted: no worse on 40 faces"), done.output
    field.add(20, "real", "fake", "real")
    done = compare(old, new, *words, *field.words)
    assert done.exit_code == 1
    assert "the new detector is worse" in done.stdout


@pytest.mark.parametrize("words", [[], ["--reviews", "x"], ["--disagreements", "x"]])
def test_something_to_compare_on_is_needed(old, new, words, tmp_path):
    done = compare(old, new, *words, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "--reviews" in done.output
