import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_runtime.errors import DataError
from train.data.build import build_catalog, labelled_files, load_data


def reasons(catalog):
    return {file.path.name: file.reason for file in catalog.quarantine}


def test_a_folder_of_real_and_fake_becomes_a_catalog(faces):
    catalog = load_data(faces)
    assert len(catalog.records) == 48
    assert {face.label for face in catalog.records if face.path.parent.name == "fake"} == {1}
    assert {face.split for face in catalog.records} == {"train", "valid", "test"}
    assert all(face.path.is_absolute() and len(face.sha256) == 64 for face in catalog.records)


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
    assert "not a regular file" in found["pipe.jpg"]
    assert "broken link" in found["dangling.jpg"]


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
