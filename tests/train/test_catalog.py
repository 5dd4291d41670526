import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_runtime.errors import DataError
from train.catalog import (
    NEAR,
    Candidate,
    Catalog,
    Share,
    build_catalog,
    labelled_files,
    load_data,
    near_duplicates,
    perceptual_hash,
)


def reasons(catalog):
    return {file.path.name: file.reason for file in catalog.quarantine}


def test_a_folder_of_real_and_fake_becomes_a_catalog(faces):
    catalog = load_data(faces)
    assert len(catalog.records) == 48
    assert {face.label for face in catalog.records if face.path.parent.name == "fake"} == {1}
    assert {face.split for face in catalog.records} == {"train", "valid", "test"}
    assert all(face.path.is_absolute() and len(face.sha256) == 64 for face in catalog.records)


def test_a_catalog_that_was_written_reads_the_same(faces, tmp_path):
    catalog = load_data(faces)
    catalog.write(tmp_path / "out" / "catalog.csv")
    again = load_data(tmp_path / "out")
    assert again.records == catalog.records
    assert again.fingerprint == catalog.fingerprint


def test_a_catalog_inside_its_folder_can_be_moved(make_faces, tmp_path):
    folder = make_faces()
    load_data(folder).write(folder / "catalog.csv")
    shutil.move(folder, tmp_path / "elsewhere")
    assert all(face.path.exists() for face in load_data(tmp_path / "elsewhere").records)


@pytest.mark.parametrize("backwards", [False, True])
def test_labels_come_from_names_and_not_from_the_order_of_listing(faces, monkeypatch, backwards):
    def in_order(names):
        return sorted(names, reverse=backwards)

    walk, listing = os.walk, os.listdir
    monkeypatch.setattr(os, "walk", lambda *a, **k: ((p, in_order(d), in_order(n)) for p, d, n in walk(*a, **k)))
    monkeypatch.setattr(os, "listdir", lambda *a: in_order(listing(*a)))
    found = labelled_files(faces)
    assert {(file.path.parent.name, file.label) for file in found} == {("real", 0), ("fake", 1)}
    assert [file.path.name for file in found] == [f"{index:03d}.png" for index in range(24)] * 2


def test_a_home_sign_in_a_path_is_expanded(make_faces, monkeypatch, tmp_path):
    make_faces("mine")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(load_data("~/mine").records) == 24


@pytest.mark.parametrize("missing", ["real", "fake"])
def test_a_folder_without_a_class_is_refused_with_its_name(make_faces, missing):
    folder = make_faces()
    shutil.rmtree(folder / missing)
    with pytest.raises(DataError, match=f"holds no folder {missing}/"):
        load_data(folder)


def test_an_empty_class_is_refused(make_faces):
    folder = make_faces()
    for file in (folder / "fake").iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"fake: holds no pictures"):
        load_data(folder)


def test_a_class_whose_pictures_are_all_broken_is_refused_and_one_is_named(make_faces):
    folder = make_faces(count=3)
    for file in (folder / "fake").iterdir():
        file.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"no fake face can be used; .*000\.png"):
        load_data(folder)


def test_what_is_no_picture_is_left_out_with_its_reason_and_the_others_stay(make_faces, draw):
    folder = make_faces()
    real = folder / "real"
    whole = draw(1, (128, 128))
    whole.save(real / "whole.jpg", quality=95)
    (real / "cut.jpg").write_bytes((real / "whole.jpg").read_bytes()[:2000])
    (real / "text.jpg").write_text("hello")
    (real / "empty.png").write_bytes(b"")
    Image.new("RGB", (1, 1)).save(real / "dot.png")
    draw(2, (200, 20)).save(real / "strip.png")
    os.mkfifo(real / "pipe.jpg")
    (real / "dangling.jpg").symlink_to(folder / "nowhere.jpg")
    (real / "folder.jpg").mkdir()
    found = reasons(load_data(folder))
    assert set(found) == {"cut.jpg", "text.jpg", "empty.png", "dot.png", "strip.png", "pipe.jpg", "dangling.jpg"}
    assert "broken or cut off" in found["cut.jpg"]
    assert "not a picture" in found["text.jpg"]
    assert "too small (1×1" in found["dot.png"]
    assert "no regular file" in found["pipe.jpg"]
    assert "link that points nowhere" in found["dangling.jpg"]


def test_grey_cmyk_16_bit_animated_turned_and_very_wide_pictures_are_faces_too(make_faces, draw):
    folder = make_faces()
    real = folder / "real"
    draw(11).convert("L").save(real / "grey.jpg")
    draw(12).convert("CMYK").save(real / "cmyk.jpg")
    Image.fromarray(np.asarray(draw(13).convert("L"), dtype=np.uint16) << 8).save(real / "deep.png")
    draw(14).convert("P").save(real / "moving.gif", save_all=True, append_images=[draw(15).convert("P")])
    exif = Image.Exif()
    exif[0x0112] = 6
    draw(16, (80, 40)).save(real / "turned.jpg", exif=exif)
    draw(17, (20_000, 40)).save(real / "wide.jpg")
    catalog = load_data(folder)
    by_name = {face.path.name: face for face in catalog.records}
    assert not catalog.quarantine
    assert {"grey.jpg", "cmyk.jpg", "deep.png", "moving.gif", "turned.jpg", "wide.jpg"} <= set(by_name)
    assert (by_name["turned.jpg"].width, by_name["turned.jpg"].height) == (40, 80)
    assert by_name["wide.jpg"].width == 20_000


def test_the_same_picture_twice_is_kept_once(make_faces):
    folder = make_faces()
    shutil.copy(folder / "real" / "000.png", folder / "real" / "copy.png")
    Image.open(folder / "real" / "001.png").save(folder / "real" / "resaved.bmp")
    found = reasons(load_data(folder))
    assert set(found) == {"copy.png", "resaved.bmp"}
    assert "the same picture as" in found["copy.png"]


def test_the_same_picture_under_two_labels_is_an_error_that_names_both(make_faces):
    folder = make_faces()
    shutil.copy(folder / "real" / "000.png", folder / "fake" / "swapped.png")
    with pytest.raises(DataError, match=r"000\.png.*swapped\.png.*once real and once fake"):
        load_data(folder)


def test_blurred_and_dark_pictures_are_left_out_when_quality_is_asked_for(make_faces, draw):
    folder = make_faces()
    Image.new("RGB", (64, 64), (120, 110, 100)).save(folder / "real" / "flat.png")
    Image.fromarray((np.asarray(draw(5)) // 20).astype(np.uint8)).save(folder / "real" / "night.png")
    catalog = build_catalog(labelled_files(folder), min_sharpness=1.0, min_brightness=20.0)
    assert "blurred" in reasons(catalog)["flat.png"]
    assert "dark" in reasons(catalog)["night.png"]


def test_splits_repeat_by_their_seed_and_differ_by_it(faces):
    names = [[face.split for face in load_data(faces, seed=seed).records] for seed in (42, 42, 7)]
    assert names[0] == names[1] != names[2]


def test_added_pictures_leave_the_others_in_their_splits(make_faces, fill):
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


def test_nearly_the_same_pictures_are_never_on_both_sides(make_faces, draw):
    folder = make_faces(count=4)
    for index in range(30):
        picture = draw(7000 + index, (96, 96))
        picture.save(folder / "real" / f"a{index}.jpg", quality=95)
        picture.save(folder / "real" / f"b{index}.jpg", quality=60)
    split = {face.path.name: face.split for face in load_data(folder).records}
    assert all(split[f"a{index}.jpg"] == split[f"b{index}.jpg"] for index in range(30))


def test_a_person_in_two_videos_ties_both_together():
    faces = [Candidate(Path(f"/{name}"), 0, source="s", identity=name) for name in ("000", "003", "000+003", "007")]
    from train.catalog import _face, group_faces

    blank = {"box": None, "phash": "0", "width": 64, "height": 64, "sharpness": 1.0}
    hashes = ("0000000000000000", "00000000ffffffff", "ffffffff00000000", "ffffffffffffffff")
    records = [_face(face, {**blank, "sha256": str(i), "phash": hashes[i]}) for i, face in enumerate(faces)]
    groups = group_faces(records)
    assert groups[0] == groups[1] == groups[2] != groups[3]


def test_splits_that_folders_name_are_respected(make_faces, tmp_path):
    make_faces("data/train", count=20)
    make_faces("data/test", count=5, first=500)
    catalog = load_data(tmp_path / "data")
    assert all(face.split == "test" for face in catalog.records if "/test/" in str(face.path))
    assert {face.split for face in catalog.records if "/train/" in str(face.path)} == {"train", "valid"}


def test_a_training_picture_that_is_nearly_a_test_picture_is_left_out(make_faces, tmp_path, draw):
    make_faces("data/train", count=20)
    make_faces("data/test", count=5, first=500)
    picture = draw(77, (96, 96))
    picture.save(tmp_path / "data/train/real/twin.jpg", quality=95)
    picture.save(tmp_path / "data/test/real/twin.jpg", quality=70)
    catalog = load_data(tmp_path / "data")
    assert [file.path.parts[-3] for file in catalog.quarantine] == ["train"]
    assert "belongs together with" in catalog.quarantine[0].reason


def test_a_small_set_has_both_classes_in_every_split(make_faces):
    catalog = load_data(make_faces(count=4))
    for split in ("train", "valid", "test"):
        assert {face.label for face in catalog.split(split)} == {0, 1}


def test_shares_are_read_in_threes_and_in_twos_as_the_article_has_them():
    assert Share.parse("70/15/15") == Share(0.7, 0.15, 0.15)
    assert Share.parse("80/20") == Share(0.8, 0.2, 0.0)
    for text in ("", "80", "a/b", "0/50/50", "-1/2/3", "1/2/3/4", "nan/1"):
        with pytest.raises(DataError, match="give shares as"):
            Share.parse(text)


def test_the_shares_are_about_what_was_asked_for(make_faces):
    catalog = load_data(make_faces(count=150, size=(32, 32)), split="60/20/20")
    share = len(catalog.split("train")) / len(catalog.records)
    assert 0.5 < share < 0.7


def test_a_line_that_is_no_face_is_named_by_its_number(faces, tmp_path):
    file = tmp_path / "catalog.csv"
    load_data(faces).write(file)
    lines = file.read_text().splitlines()
    lines[3] = lines[3].replace("real", "maybe")
    file.write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"catalog\.csv:4"):
        Catalog.read(file)


def test_a_missing_folder_says_what_to_give():
    with pytest.raises(DataError, match="no such folder; give"):
        load_data("/nowhere/at/all")


def test_an_interrupted_scan_does_not_look_at_known_files_again(make_faces, draw):
    folder = make_faces(count=5)
    notes = {}
    first = build_catalog(labelled_files(folder), remember=lambda found: notes.setdefault(found["path"], found))
    looked = []
    again = build_catalog(labelled_files(folder), known=notes, remember=looked.append)
    assert again == first
    assert not looked
    draw(99).save(folder / "real" / "000.png")
    build_catalog(labelled_files(folder), known=notes, remember=looked.append)
    assert [Path(found["path"]).name for found in looked] == ["000.png"]


def test_near_duplicates_are_exactly_the_hashes_within_the_limit():
    random = np.random.default_rng(3)
    bases = random.integers(0, 2**63, 200, dtype=np.uint64)
    flips = [sum(1 << int(bit) for bit in random.choice(64, random.integers(0, 10), replace=False)) for _ in bases]
    values = [int(base) for base in bases] + [int(base) ^ flip for base, flip in zip(bases, flips, strict=True)]
    expected = {(i, j) for i in range(400) for j in range(i + 1, 400) if bin(values[i] ^ values[j]).count("1") <= NEAR}
    assert set(near_duplicates([f"{value:016x}" for value in values])) == expected


def test_the_perceptual_hash_survives_compression_and_scaling_and_tells_pictures_apart(tmp_path, draw):
    picture = draw(1, (256, 256))
    picture.save(tmp_path / "low.jpg", quality=40)
    with Image.open(tmp_path / "low.jpg") as low:
        distance = int(perceptual_hash(picture), 16) ^ int(perceptual_hash(low.resize((200, 200))), 16)
    assert bin(distance).count("1") <= NEAR
    other = int(perceptual_hash(picture), 16) ^ int(perceptual_hash(draw(2, (256, 256))), 16)
    assert bin(other).count("1") > 10
