"""Fakes from one's own photographs, from files to files."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.drawn_face import draw_face
from PIL import Image, JpegImagePlugin

from edge_runtime.errors import UsageError
from train.data.build import load_data
from train.data.catalog import Catalog
from train.self_made import fakes
from train.self_made.fakes import SELF_BLENDED, SELF_MADE, add_fakes, save_alike


@pytest.fixture(scope="module")
def catalog(draw, tmp_path_factory):
    """16 real JPEGs for training, of different sides, qualities and subsamplings, and 6 other faces."""
    root = tmp_path_factory.mktemp("photographs")
    for index in range(22):
        label = "fake" if index > 18 else "real"
        folder = root / ("train" if index < 16 else "valid") / label
        folder.mkdir(parents=True, exist_ok=True)
        options = {"quality": (75, 85, 95)[index % 3], "subsampling": index % 2 * 2}
        draw(index, (101 + index, 120)).save(folder / f"{index}.jpg", **options)
    draw(50, (110, 110), fake=True).save(root / "train" / "fake.png")
    (root / "train" / "fake").mkdir()
    (root / "train" / "fake.png").rename(root / "train" / "fake" / "50.png")
    records = (replace(face, source="studio", generator="gan" * face.label) for face in load_data(root).records)
    return Catalog(tuple(records))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        patch.setattr("train.self_made.autoencoder.BATCH", 2)
        yield folder


@pytest.fixture(scope="module")
def added(catalog, cache):
    return add_fakes(catalog, [SELF_MADE], steps=2)


def test_one_fake_for_each_training_photograph(catalog, added):
    reals = [face for face in catalog.split("train") if face.label == 0]
    (made,) = added[1]
    assert (len(made.faces), made.originals) == (16, 16)
    assert {(face.label, face.split, face.source, face.generator) for face in made.faces} == {
        (1, "train", "studio", "self_made")
    }
    assert [(face.phash, face.width, face.height) for face in made.faces] == [
        (face.phash, face.width, face.height) for face in reals
    ]
    assert set(added[0].records) == {*catalog.records, *made.faces}


def test_files_are_encoded_as_their_originals(catalog, added):
    def encoding(face):
        with Image.open(face.path) as file:
            return file.quantization, JpegImagePlugin.get_sampling(file), file.size

    reals = [face for face in catalog.split("train") if face.label == 0]
    (made,) = added[1]
    encodings = [encoding(face) for face in made.faces]
    assert encodings == [encoding(face) for face in reals]
    assert len({str(tables) for tables, _, _ in encodings}) == 3
    assert not made.audit.faults


def test_killed_run_makes_only_what_is_missing(catalog, added, monkeypatch):
    (made,) = added[1]
    gone, kept = made.faces[0].path, made.faces[1].path
    before = gone.read_bytes(), kept.stat().st_mtime_ns
    gone.unlink()
    monkeypatch.setattr("train.self_made.autoencoder.train_autoencoder", None)
    assert add_fakes(catalog, [SELF_MADE], steps=2)[0].fingerprint == added[0].fingerprint
    assert (gone.read_bytes(), kept.stat().st_mtime_ns) == before


def test_fakes_are_not_added_twice(added):
    again, made = add_fakes(added[0], [SELF_MADE], steps=2)
    assert (again, made) == (added[0], [])


def test_cache_that_takes_no_files(catalog, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UsageError, match="XDG_CACHE_HOME"):
        add_fakes(catalog, [SELF_MADE], steps=2)


@pytest.mark.parametrize(("mode", "form"), [("L", "JPEG"), ("CMYK", "JPEG"), ("RGB", "PNG"), ("P", "GIF")])
def test_saved_alike(draw, tmp_path, mode, form):
    draw(1).convert(mode).save(tmp_path / "original", form)
    save_alike(draw(2), tmp_path / "original", tmp_path / "fake")
    with Image.open(tmp_path / "fake") as file:
        assert file.format == ("PNG" if form == "GIF" else form)
        assert file.mode == ("L" if mode == "L" else "RGB")
        difference = np.asarray(file.convert("L"), float) - np.asarray(draw(2).convert("L"), float)
    assert np.abs(difference).mean() < 8


def test_only_the_surroundings_of_a_box_change(catalog, cache, draw, tmp_path):
    draw(3, (400, 300)).save(tmp_path / "wide.png")
    face = replace(catalog.split("train")[0], path=tmp_path / "wide.png", box=(40.0, 60.0, 100.0, 120.0), sha256="ab")
    fakes._make(face, lambda picture, random: np.zeros((*picture.size[::-1], 3), np.float32), tmp_path / "out.png", 0)
    changed = np.argwhere((np.asarray(Image.open(tmp_path / "out.png")) == 0).all(-1))
    assert (changed.min(0).tolist(), changed.max(0).tolist()) == ([30, 10], [149, 129])


def test_blended_where_a_face_is_found(catalog, cache, face_model, tmp_path):
    faces = []
    for index in range(12):
        picture = draw_face((200, 160, 140), (60, 75), 70, Image.new("RGB", (120, 150), (90, 110, 9 * index)))
        if index < 2:  # Flat: no face.
            picture.paste((90, 90, 9 * index), (0, 0, 120, 150))
        picture.save(tmp_path / f"{index}.jpg", quality=90)
        faces.append(replace(catalog.records[0], path=tmp_path / f"{index}.jpg", label=0, sha256=f"{index:020d}"))
    blended, (made,) = add_fakes(Catalog(tuple(faces)), [SELF_BLENDED])
    assert (len(made.faces), made.originals) == (10, 12)
    assert {face.generator for face in blended.records} == {"", "self_blended"}
