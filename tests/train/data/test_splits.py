from pathlib import Path

import numpy as np
import pytest

from edge_runtime.errors import DataError
from edge_runtime.pixels.phash import NEAR_BITS
from train.data.build import load_data
from train.data.catalog import FaceRecord
from train.data.splits import Share, group_faces, near_duplicates


def test_splits_repeat_by_seed(faces):
    names = [[face.split for face in load_data(faces, seed=seed).records] for seed in (42, 42, 7)]
    assert names[0] == names[1] != names[2]


def test_added_pictures_do_not_move_others(make_faces, fill):
    folder = make_faces(count=60)
    before = {face.path: face.split for face in load_data(folder).records}
    fill(folder, 90)
    after = {face.path: face.split for face in load_data(folder).records}
    assert all(after[path] == split for path, split in before.items())


def test_no_person_is_in_two_splits(make_faces, draw):
    folder = make_faces(count=2)
    for person in range(20):
        place = folder / "real" / f"person{person}"
        place.mkdir()
        for index in range(3):
            draw(5000 + 10 * person + index).save(place / f"{index}.png")
    people = {}
    for face in load_data(folder).records:
        people.setdefault(face.identity or face.path, set()).add(face.split)
    assert all(len(splits) == 1 for splits in people.values())
    assert len({split for splits in people.values() for split in splits}) == 3


def test_near_duplicates_share_a_split(make_faces, draw):
    folder = make_faces(count=4)
    for index in range(30):
        picture = draw(7000 + index, (96, 96))
        picture.save(folder / "real" / f"a{index}.jpg", quality=95)
        picture.save(folder / "real" / f"b{index}.jpg", quality=60)
    split = {face.path.name: face.split for face in load_data(folder).records}
    assert all(split[f"a{index}.jpg"] == split[f"b{index}.jpg"] for index in range(30))


def test_a_shared_person_joins_two_videos():
    people = {"000": "0" * 16, "003": "00000000ffffffff", "000+003": "ffffffff00000000", "007": "f" * 16}
    faces = [
        FaceRecord(Path(f"/{name}"), 0, "", "s", "", name, None, name, phash, 64, 64, 1.0)
        for name, phash in people.items()
    ]
    groups = group_faces(faces)
    assert groups[0] == groups[1] == groups[2] != groups[3]


def test_splits_named_by_folders_are_kept(make_faces, tmp_path):
    make_faces("data/train", count=20)
    make_faces("data/test", count=5, first=500)
    catalog = load_data(tmp_path / "data")
    assert all(face.split == "test" for face in catalog.records if "/test/" in str(face.path))
    assert {face.split for face in catalog.records if "/train/" in str(face.path)} == {"train", "valid"}


def test_training_duplicates_of_test_pictures_are_left_out(make_faces, tmp_path, draw):
    make_faces("data/train", count=20)
    make_faces("data/test", count=5, first=500)
    picture = draw(77, (96, 96))
    picture.save(tmp_path / "data/train/real/twin.jpg", quality=95)
    picture.save(tmp_path / "data/test/real/twin.jpg", quality=70)
    catalog = load_data(tmp_path / "data")
    assert [file.path.parts[-3] for file in catalog.quarantine] == ["train"]
    assert "belongs together with" in catalog.quarantine[0].reason


def test_a_small_set_fills_every_split(make_faces):
    catalog = load_data(make_faces(count=4))
    for split in ("train", "valid", "test"):
        assert {face.label for face in catalog.split(split)} == {0, 1}


def test_shares_are_two_or_three_numbers():
    assert Share.parse("70/15/15") == Share(0.7, 0.15, 0.15)
    assert Share.parse("80/20") == Share(0.8, 0.2, 0.0)
    for text in ("", "80", "a/b", "0/50/50", "-1/2/3", "1/2/3/4", "nan/1"):
        with pytest.raises(DataError, match="give shares as"):
            Share.parse(text)


def test_splits_have_about_the_given_shares(make_faces):
    catalog = load_data(make_faces(count=150, size=(32, 32)), split="60/20/20")
    share = len(catalog.split("train")) / len(catalog.records)
    assert 0.5 < share < 0.7


def test_near_duplicates_are_found_exactly():
    random = np.random.default_rng(3)
    bases = random.integers(0, 2**63, 200, dtype=np.uint64)
    flips = [sum(1 << int(bit) for bit in random.choice(64, random.integers(0, 10), replace=False)) for _ in bases]
    values = [int(base) for base in bases] + [int(base) ^ flip for base, flip in zip(bases, flips, strict=True)]
    pairs = ((i, j) for i in range(400) for j in range(i + 1, 400))
    expected = {(i, j) for i, j in pairs if bin(values[i] ^ values[j]).count("1") <= NEAR_BITS}
    assert set(near_duplicates([f"{value:016x}" for value in values])) == expected
