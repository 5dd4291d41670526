import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from edge_runtime.errors import DataError
from train.data.build import build_catalog, load_data
from train.data.layouts import list_labelled

FORMATS = {".jfif": "JPEG", ".jpe": "JPEG", ".MPO": "MPO", ".avif": "AVIF", ".heic": "JPEG"}


def reasons(catalog):
    return {file.path.name: file.reason for file in catalog.quarantine}


def test_a_folder_becomes_a_catalog(faces):
    catalog = load_data(faces)
    assert len(catalog.records) == 48
    assert {face.label for face in catalog.records if face.path.parent.name == "fake"} == {1}
    assert {face.split for face in catalog.records} == {"train", "valid", "test"}
    assert all(face.path.is_absolute() and len(face.sha256) == 64 for face in catalog.records)


def test_a_home_sign_is_expanded(make_faces, monkeypatch, tmp_path):
    make_faces("mine")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(load_data("~/mine").records) == 24


def test_unusable_files_are_left_out_with_reasons(make_faces, draw):
    folder = make_faces()
    real = folder / "real"
    draw(1, (128, 128)).save(real / "whole.jpg", quality=95)
    (real / "cut.jpg").write_bytes((real / "whole.jpg").read_bytes()[:2000])
    (real / "text.jpg").write_text("hello")
    (real / "notes.txt").write_text("hello")
    (real / "empty.png").write_bytes(b"")
    Image.new("RGB", (1, 1)).save(real / "dot.png")
    draw(2, (200, 20)).save(real / "strip.png")
    os.mkfifo(real / "pipe.jpg")
    (real / "dangling.jpg").symlink_to(folder / "nowhere.jpg")
    (real / "loop.jpg").symlink_to(real / "loop.jpg")
    (real / "folder.jpg").mkdir()
    (real / os.fsdecode(b"odd\xff.jpg")).write_text("hello")
    catalog = load_data(folder)
    assert reasons(catalog)["text.jpg"] == reasons(catalog)[os.fsdecode(b"odd\xff.jpg")]
    fine = {"whole.jpg", *(f"{index:03d}.png" for index in range(12))}
    assert {face.path.name for face in catalog.records} == fine
    assert set(reasons(catalog)) == {path.name for path in real.iterdir()} - fine - {"folder.jpg"}
    assert {file.path.name for file in catalog.quarantine if not file.broken} == {"dot.png", "strip.png", "notes.txt"}


def test_unusual_pictures_are_faces_too(make_faces, draw):
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
    for index, (suffix, name) in enumerate(FORMATS.items()):
        draw(20 + index).save(real / f"camera{suffix}", name)
    catalog = load_data(folder)
    sizes = {face.path.name: (face.width, face.height) for face in catalog.records}
    assert not catalog.quarantine
    assert len(sizes) == 12 + 6 + len(FORMATS)
    assert sizes["turned.jpg"] == (40, 80)
    assert sizes["wide.jpg"] == (20_000, 40)


def test_the_same_picture_is_kept_once(make_faces):
    folder = make_faces()
    shutil.copy(folder / "real" / "000.png", folder / "real" / "copy.png")
    Image.open(folder / "real" / "001.png").save(folder / "real" / "resaved.bmp")
    assert set(reasons(load_data(folder))) == {"copy.png", "resaved.bmp"}


def test_one_picture_with_two_labels_is_refused(make_faces):
    folder = make_faces()
    shutil.copy(folder / "real" / "000.png", folder / "fake" / "swapped.png")
    with pytest.raises(DataError, match=r"000\.png.*swapped\.png"):
        load_data(folder)


def test_a_real_that_says_ai_made_it_is_a_label_error(make_faces, draw):
    folder, settings = make_faces(), PngImagePlugin.PngInfo()
    settings.add_text("parameters", "a face, Steps: 20")
    exif = Image.Exif()
    exif[0x0131] = "Midjourney"
    for seed, name in enumerate(("real", "fake")):
        draw(50 + seed).save(folder / name / "generated.png", pnginfo=settings)
        draw(60 + seed).save(folder / name / "generated.jpg", exif=exif)
    catalog = load_data(folder)
    assert [(file.path, file.broken) for file in catalog.quarantine] == [
        (folder / "real" / "generated.jpg", True),
        (folder / "real" / "generated.png", True),
    ]
    assert "AI made it (PNG text: parameters: a face, Steps: 20)" in reasons(catalog)["generated.png"]
    assert sum(face.path.stem == "generated" for face in catalog.records) == 2


def test_blurred_and_dark_pictures_can_be_left_out(make_faces, draw):
    folder = make_faces()
    Image.new("RGB", (64, 64), (120, 110, 100)).save(folder / "real" / "flat.png")
    Image.fromarray((np.asarray(draw(5)) // 20).astype(np.uint8)).save(folder / "real" / "night.png")
    catalog = build_catalog(list_labelled(folder).files, min_sharpness=1.0, min_brightness=20.0)
    assert reasons(catalog)["flat.png"].startswith("blurred")
    assert reasons(catalog)["night.png"].startswith("dark")


def test_a_class_of_broken_pictures_is_refused(make_faces):
    folder = make_faces(count=3)
    for file in (folder / "fake").iterdir():
        file.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"no fake face can be used; .*000\.png"):
        load_data(folder)


def test_an_interrupted_scan_is_resumed(make_faces, draw):
    folder = make_faces(count=5)
    notes, measured = {}, []
    files = list_labelled(folder).files
    first = build_catalog(files, remember=lambda found: notes.setdefault(found["path"], found))
    assert build_catalog(files, known=notes, remember=measured.append) == first
    assert not measured
    draw(99).save(folder / "real" / "000.png")
    build_catalog(files, known=notes, remember=measured.append)
    assert [Path(found["path"]).name for found in measured] == ["000.png"]
