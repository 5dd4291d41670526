from dataclasses import replace
from datetime import datetime, timedelta, timezone
from hashlib import sha256

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from edge_runtime.command import command_app
from edge_runtime.errors import DataError
from edge_runtime.judging.results import FaceResult, FrameResult
from edge_runtime.model.contract import Verdict
from edge_runtime.review.database import ReviewDatabase, ReviewFace, ReviewLabel
from edge_runtime.review.kept_face import face_png
from edge_runtime.review.sealing import PrivateKey, sealer, write_key_pair
from edge_runtime.review.selection import KeptFor
from train.cli import prepare_faces
from train.data.build import load_data
from train.data.catalog import Catalog
from train.data.reviewed import PICTURES, add_reviewed, identity
from train.data.splits import Share

MORNING = datetime(2026, 5, 4, 8, 0, tzinfo=timezone.utc)
SHARE = Share.parse("50/10/40")


@pytest.fixture
def base(make_faces, tmp_path):
    load_data(make_faces()).write(tmp_path / "base" / "catalog.csv")
    return Catalog.read(tmp_path / "base" / "catalog.csv")


class Desk:
    """A review database, and a camera that fills it with pictures of their own."""

    def __init__(self, folder, draw):
        folder.mkdir()
        self.folder, self._draw = folder, draw
        self.database = ReviewDatabase(folder / "reviews.sqlite", create=True)

    def keep(self, seed, *, label=ReviewLabel.REAL, minutes=None, source="door", seal=None, picture=None):
        """Add a face that was seen `minutes` after the morning (default: ten for each seed), and label it."""
        when = MORNING + timedelta(minutes=10 * seed if minutes is None else minutes)
        picture = picture or self._draw(50_000 + seed, (96, 96))
        face = FaceResult((24, 24, 72, 72), 0.9, None, 0.5, Verdict.UNCERTAIN)
        result = FrameResult(source, seed, when, width=96, height=96, faces=(face,))
        about = {"board": "b", "purpose": "p", "delete_after": "2026-06-01T00:00:00.000Z"}
        data = face_png(picture, result, face, KeptFor.UNCERTAIN, about)
        path = self.folder / f"{seed}.png{'.age' if seal else ''}"
        path.write_bytes(seal(data) if seal else data)
        number = self.database.add_face(
            ReviewFace(
                path=path,
                sha256=sha256(path.read_bytes()).hexdigest(),
                source=source,
                time=when,
                verdict="uncertain",
                score=0.5,
                reason="uncertain",
            )
        )
        if label:
            self.database.add_review(number, "ada", label)
        return number


@pytest.fixture
def desk(tmp_path, draw):
    return Desk(tmp_path / "desk", draw)


def new_version(base, desk, out, **changes):
    version = add_reviewed(base, desk.database, out, SHARE, 42, **changes)
    version.catalog.write(out / "catalog.csv")
    return version


def added(version, base):
    held = {face.sha256 for face in base.records}
    return [face for face in version.catalog.records if face.sha256 not in held]


def test_old_faces_keep_their_splits(base, desk, tmp_path):
    for seed in range(40):
        desk.keep(seed, label=ReviewLabel.FAKE if seed % 4 == 0 else ReviewLabel.REAL)
    version = new_version(base, desk, tmp_path / "new")
    assert version.catalog.records[: len(base.records)] == base.records
    new = added(version, base)
    assert (len(new), version.added, sum(face.label for face in new)) == (40, 40, 10)
    assert {face.split for face in new} == {"train", "valid", "test"}
    # The board's box, within the picture that was kept around it.
    assert {face.box for face in new} == {(24.0, 24.0, 72.0, 72.0)}
    assert Catalog.read(tmp_path / "new" / "catalog.csv").records == version.catalog.records


def test_frozen_faces_stay_frozen(base, desk, tmp_path):
    """A second version on top of the first, after more reviews, moves nothing."""
    for seed in range(30):
        desk.keep(seed)
    first = new_version(base, desk, tmp_path / "one")
    for seed in range(30, 60):
        desk.keep(seed)
    second = new_version(first.catalog, desk, tmp_path / "two")
    splits = {face.sha256: face.split for face in second.catalog.records}
    assert all(splits[face.sha256] == face.split for face in first.catalog.records)
    assert second.added == 30
    frozen = [face for face in added(second, base) if face.split == "test"]
    assert 60 * 0.4 - 12 <= len(frozen) <= 60 * 0.4 + 12


def test_groups_that_grow_together_stay_frozen(base, desk, tmp_path):
    """Visits that were drawn apart, and a later review of somebody who was there between them."""
    for seed in range(20):
        desk.keep(2 * seed, minutes=100 * seed)
        desk.keep(2 * seed + 1, minutes=100 * seed + 2)
    first = new_version(base, desk, tmp_path / "one")
    apart = [pair for pair in zip(*[iter(added(first, base))] * 2, strict=True) if pair[0].split != pair[1].split]
    for seed in range(20):
        desk.keep(100 + seed, minutes=100 * seed + 1)
    second = new_version(first.catalog, desk, tmp_path / "two")
    splits = {face.sha256: face.split for face in second.catalog.records}
    assert all(splits[face.sha256] == face.split for face in first.catalog.records)
    assert second.added == 20 - len(apart) < 20
    assert sum("belongs together with faces in" in file.reason for file in second.catalog.quarantine) == len(apart)


def test_one_visit_stays_in_one_split(base, desk, tmp_path):
    """A person before the door for five minutes, over and over."""
    for visit in range(12):
        for step in range(6):
            desk.keep(10 * visit + step, minutes=60 * visit + step * 0.9)
    new = added(new_version(base, desk, tmp_path / "new"), base)
    splits = [{face.split for face in new[6 * visit : 6 * visit + 6]} for visit in range(12)]
    assert all(len(found) == 1 for found in splits)
    assert len(set.union(*splits)) > 1


def test_a_later_review_of_a_visit_follows_the_old_split(base, desk, tmp_path):
    for seed in range(10):
        desk.keep(seed, minutes=60 * seed)
    first = new_version(base, desk, tmp_path / "one")
    for seed in range(10):
        desk.keep(100 + seed, minutes=60 * seed - 0.5)
    second = new_version(first.catalog, desk, tmp_path / "two")
    before, after = added(first, base), added(second, first.catalog)
    assert [face.split for face in after] == [face.split for face in before]


def test_a_copy_of_an_old_face_follows_it(base, desk, tmp_path):
    """Saved again as JPEG it has other bytes, but nearly the same perceptual hash."""
    old = next(face for face in base.records if face.split == "test" and face.label == 0)
    with Image.open(old.path) as picture:
        noisy = np.asarray(picture.convert("RGB").resize((96, 96), Image.Resampling.BICUBIC), np.int16) + 1
    same = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
    for seed in range(8):
        desk.keep(seed, picture=same if seed == 3 else None)
    new = added(new_version(base, desk, tmp_path / "new"), base)
    assert new[3].split == "test"


def test_labels_that_say_nothing_are_left_out(base, desk, tmp_path):
    for seed, label in enumerate(("real", "unusable", "skip", "fake", None)):
        desk.keep(seed, label=label and ReviewLabel(label))
    desk.database.add_review(4, "bob", ReviewLabel.REAL)  # the face with number 4 is the fake: reviewers disagree
    version = new_version(base, desk, tmp_path / "new")
    assert version.added == 1
    assert {file.reason for file in version.catalog.quarantine} == {"reviewed as unusable", "reviewers disagree"}
    assert version.waiting == 2


def test_expired_pictures_are_named(base, desk, tmp_path):
    for seed in range(2):
        desk.keep(seed)
    (desk.folder / "1.png").unlink()
    version = new_version(base, desk, tmp_path / "new")
    assert version.added == 1
    assert "time may be over" in version.catalog.quarantine[-1].reason


def test_encrypted_pictures_need_the_key(base, desk, tmp_path):
    pytest.importorskip("pyrage", reason="needs the extra review: pip install pyrage")
    public = write_key_pair(tmp_path / "key")
    desk.keep(1, seal=sealer([public]))
    with pytest.raises(DataError, match=r"none of its 1 reviewed faces .*give --private-key"):
        new_version(base, desk, tmp_path / "without")
    version = new_version(base, desk, tmp_path / "with", key=PrivateKey(tmp_path / "key"))
    (face,) = added(version, base)
    with Image.open(face.path) as picture:
        assert picture.size == (face.width, face.height) == (96, 96)


def test_pictures_of_a_folder_are_one_source(base, desk, tmp_path):
    for seed in range(4):
        desk.keep(seed, minutes=0, source=f"b: holiday/{seed}.jpg")
    new = added(new_version(base, desk, tmp_path / "new"), base)
    assert {(face.source, face.identity) for face in new} == {("b: holiday", "")}


def test_seen_within_a_minute_is_one_identity():
    face = ReviewFace("x", "x", "door", MORNING, "real", 0.1, "random")
    for seconds in range(0, 61, 5):
        later = replace(face, time=MORNING + timedelta(seconds=seconds))
        assert set(identity(face).split("+")) & set(identity(later).split("+"))
    assert not set(identity(face).split("+")) & set(
        identity(replace(face, time=MORNING + timedelta(minutes=2))).split("+")
    )


def prepare(*words):
    return CliRunner().invoke(command_app(prepare_faces), list(map(str, words)))


def test_command_writes_a_new_version(base, desk, tmp_path):
    for seed in range(6):
        desk.keep(seed)
    words = ["--reviewed", desk.database.path, "--base", tmp_path / "base", "--out", tmp_path / "new"]
    done = prepare(*words)
    assert "reviewed faces added: 6" in done.output
    catalog = Catalog.read(tmp_path / "new" / "catalog.csv")
    assert len(catalog.records) == len(base.records) + 6
    assert len(list((tmp_path / "new" / PICTURES).iterdir())) == 6
    assert (tmp_path / "base" / "catalog.csv").is_file()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--reviewed", "DB"], "error: --reviewed needs --base, the catalog to extend"),
        (["--base", "BASE"], "error: --base needs --reviewed, a review database"),
        (["--base", "BASE", "--private-key", "NONE"], "--base needs --reviewed"),
        (["FACES", "--private-key", "NONE"], "error: --private-key needs --reviewed"),
        (["--reviewed", "DB", "--base", "BASE", "--folders", "source"], "with --reviewed and --base, only"),
        (["--reviewed", "DB", "--base", "BASE", "--crop", "--face-model", "NONE"], "with --reviewed and --base, only"),
        (["--reviewed", "DB", "--base", "BASE", "--face-model", "NONE"], "error: --face-model needs --crop"),
        (["FACES", "--reviewed", "DB", "--base", "BASE"], "--reviewed"),
        (["--reviewed", "DB", "--base", "BASE", "--crop"], "--reviewed"),
        (["--reviewed", "DB", "--base", "BASE", "--split", "80/20"], "--split 80/20"),
        (["--reviewed", "DB", "--base", "BASE", "--out", "BASE"], "--out"),
        (["--reviewed", "NONE", "--base", "BASE"], "none.sqlite"),
        (["--reviewed", "DB", "--base", "BASE"], "/review"),
    ],
)
def test_wrong_options_are_one_line(words, named, base, desk, tmp_path):
    places = {"DB": desk.database.path, "BASE": tmp_path / "base", "FACES": tmp_path / "faces"}
    places["NONE"] = tmp_path / "none.sqlite"
    done = prepare(
        *(places.get(word, word) for word in words), *([] if "--out" in words else ["--out", tmp_path / "x"])
    )
    assert done.exit_code == 2
    assert named in done.output
    assert len(done.output.strip().splitlines()) == 1
