import contextlib
import os
import shutil

import pytest

from edge_runtime.errors import DataError
from train.choices import Folders
from train.data.build import build_catalog, has_splits, load_data
from train.data.layouts import LAYOUTS, list_class, list_faces, list_labelled

TREES = {
    "140k": {
        "real_vs_fake/real-vs-fake/train/real/00001.jpg": (0, "train", "", ""),
        "real_vs_fake/real-vs-fake/valid/fake/X.jpg": (1, "valid", "StyleGAN", ""),
    },
    "faces": {"Real/a.jpg": (0, "", "", ""), "FAKE/video7/b.HEIC": (1, "", "", "video7")},
    "faces-in-splits": {
        "train/real/ann/a.jpg": (0, "train", "", "ann"),
        "val/fake/b.jpg": (1, "valid", "", ""),
        "Validation/real/c.avif": (0, "valid", "", ""),
    },
    "faceforensics": {
        "original_sequences/youtube/c23/images/003/0001.png": (0, "", "", "003"),
        "manipulated_sequences/Deepfakes/c23/images/000_003/0001.png": (1, "", "Deepfakes", "000+003"),
    },
    "ifakefacedb": {
        "iFakeFaceDB_TPDNE/1.jpg": (1, "", "iFakeFaceDB_TPDNE", ""),
        "iFakeFaceDB_100K-Faces/2.jpg": (1, "", "iFakeFaceDB_100K-Faces", ""),
    },
    "celeba": {"img_align_celeba/000001.jpg": (0, "", "", "2880")},
    "deepfacelab": {
        "data_src/aligned/00001_0.jpg": (0, "", "", "data_src"),
        "data_dst/aligned/00001_0.jpg": (0, "", "", "data_dst"),
        "data_dst/merged/00001.png": (1, "", "DeepFaceLab", "data_dst"),
    },
    "faceswap": {
        "faces/clip1/clip1_0001.png": (0, "", "", "clip1"),
        "converted/clip1/clip1_0001.png": (1, "", "FaceSwap", "clip1"),
    },
    "vggface2": {"train/n000002/0001_01.jpg": (0, "", "", "n000002")},
    "casia-webface": {"0000045/001.jpg": (0, "", "", "0000045")},
    "lfw": {"Ann_Example/Ann_Example_0001.jpg": (0, "", "", "Ann_Example")},
}


def touch(file):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    return file


@pytest.fixture
def tree(tmp_path):
    def make(name):
        for path in TREES[name]:
            touch(tmp_path / "data" / path)
        if name == "celeba":
            (tmp_path / "data" / "identity_CelebA.txt").write_text("000001.jpg 2880\n")
        return tmp_path / "data"

    return make


@pytest.mark.parametrize("name", [layout.name for layout in LAYOUTS])
def test_every_layout_is_recognized(tree, name):
    root = tree(name)
    files = list_faces(root).files
    said = {
        file.path.relative_to(root.resolve()).as_posix(): (file.label, file.split, file.generator, file.identity)
        for file in files
    }
    assert said == TREES[name]
    assert {file.source for file in files} == {"data"}
    assert list_faces(root, name).files == files


def test_unknown_layouts_are_refused(tree, tmp_path):
    with pytest.raises(DataError, match="--layout mine: unknown"):
        list_faces(tree("lfw"), "mine")
    touch(tmp_path / "other" / "photos" / "a.jpg")
    for folder in (tmp_path / "other", tmp_path / "nowhere"):
        with pytest.raises(DataError, match=folder.name):
            list_faces(folder)


def test_the_order_of_listing_does_not_matter(faces, monkeypatch):
    expected = list_labelled(faces)
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: contextlib.nullcontext([*scandir(path)][::-1]))
    assert list_labelled(faces) == expected
    assert {(file.path.parent.name, file.label) for file in expected.files} == {("real", 0), ("fake", 1)}


@pytest.mark.parametrize("missing", ["real", "fake"])
def test_a_missing_class_is_named(make_faces, missing):
    folder = make_faces(count=2)
    shutil.rmtree(folder / missing)
    with pytest.raises(DataError, match=f"holds no {missing} pictures"):
        load_data(folder)
    (folder / missing).mkdir()
    with pytest.raises(DataError, match=f"holds no {missing} pictures"):
        load_data(folder)


@pytest.mark.parametrize("name", ["val", "validation", "Valid"])
def test_validation_folders_are_splits(make_faces, tmp_path, name):
    make_faces("data/train", count=4)
    make_faces(f"data/{name}", count=3, first=500)
    assert has_splits(tmp_path / "data")
    catalog = load_data(tmp_path / "data")
    assert {split: len(catalog.split(split)) for split in ("train", "valid", "test")} == {
        "train": 8,
        "valid": 6,
        "test": 0,
    }
    shutil.rmtree(tmp_path / "data" / name / "fake")
    with pytest.raises(DataError, match="the valid folder holds no fake pictures"):
        load_data(tmp_path / "data")


def test_links_are_followed_once(make_faces, tmp_path):
    made, root = make_faces("made", count=3), tmp_path / "linked"
    (root / "fake").mkdir(parents=True)
    (root / "real").symlink_to(made / "real")
    (root / "fake" / "deeper").symlink_to(made / "fake")
    (made / "fake" / "back").symlink_to(root)
    for listing in (list_faces(root), list_labelled(root)):
        assert len(listing.files) == 6
    assert {file.identity for file in list_faces(root).files if file.label} == {"deeper"}


def test_other_files_are_counted_as_left_out(make_faces):
    folder = make_faces(count=2)
    touch(folder / "real" / "clip.mp4")
    touch(folder / "fake" / "README")
    touch(folder / "fake" / ".hidden.png")
    touch(folder / "notes.txt")
    for left_out in (list_faces(folder).left_out, load_data(folder).quarantine):
        assert {(file.path.name, file.broken) for file in left_out} == {("clip.mp4", False), ("README", False)}


def test_a_folder_that_cannot_be_listed_is_named(make_faces):
    folder = make_faces(count=2)
    here = os.open(folder / "real", os.O_RDONLY)
    try:
        for _ in range(1500):
            os.mkdir("deep", dir_fd=here)
            here, above = os.open("deep", os.O_RDONLY, dir_fd=here), here
            os.close(above)
        (file,) = load_data(folder).quarantine
        assert file.broken
        assert file.path.name == "deep"
        assert "can't be listed" in file.reason
    finally:
        os.close(here)
        os.system(f"rm -rf '{folder}/real/deep'")


def test_frames_of_one_video_share_a_split(tmp_path, draw):
    for number in range(4):
        for index, place in enumerate(("data_src/aligned", "data_dst/aligned", "data_dst/merged")):
            folder = tmp_path / f"workspace{number}" / place
            folder.mkdir(parents=True)
            for frame in range(4):
                draw(1000 * number + 100 * index + frame).save(folder / f"{frame}.png")
    found = [file for source in sorted(tmp_path.iterdir()) for file in list_faces(source).files]
    splits = {}
    for face in build_catalog(found).records:
        splits.setdefault((face.source, face.identity), set()).add(face.split)
    assert len(splits) == 8
    assert all(len(names) == 1 for names in splits.values())


def test_a_folder_of_one_class_holds_people(tmp_path):
    touch(tmp_path / "Generated" / "run1" / "a.png")
    (found,) = list_class([tmp_path / "Generated"], 1).files
    assert (found.label, found.source, found.generator, found.identity) == (1, "Generated", "Generated", "run1")
    with pytest.raises(DataError, match="none: not found; give folders of real faces"):
        list_class([tmp_path / "none"], 0)


def test_several_data_sets_become_one_catalog(make_faces, tmp_path):
    first, second = make_faces("first"), make_faces("second", first=500)
    shutil.copy(first / "real" / "003.png", second / "real" / "again.png")
    joined = load_data(first, second)
    assert len(joined.records) == 48
    assert {face.source for face in joined.records} == {"first", "second"}
    assert [file.path.name for file in joined.quarantine] == ["again.png"]
    one, two = load_data(first, seed=1), load_data(second, seed=2)
    one.write(tmp_path / "one.csv")
    two.write(tmp_path / "two.csv")
    both = load_data(tmp_path / "one.csv", tmp_path / "two.csv")
    split = {face.sha256: face.split for face in (*two.records, *one.records)}
    assert len(both.records) == 48
    assert all(face.split == split[face.sha256] for face in both.records)
    assert load_data(tmp_path / "one.csv", second).records[:24] == one.records
    shutil.copy(first / "real" / "003.png", second / "fake" / "again.png")
    (second / "real" / "again.png").unlink()
    with pytest.raises(DataError, match="once real and once fake"):
        load_data(tmp_path / "one.csv", second)


def test_labelled_faces_keep_their_order(make_faces):
    labels = [file.label for file in list_labelled(make_faces(count=2)).files]
    assert labels == [0, 0, 1, 1]  # a resumed training relies on it


@pytest.mark.parametrize(
    ("pictures", "folders", "sources"),
    [
        (40, Folders.AUTO, True),
        (39, Folders.AUTO, False),
        (40, Folders.IDENTITY, False),
        (2, Folders.SOURCE, True),
    ],
)
def test_few_large_folders_are_sources(pictures, folders, sources, tmp_path):
    for place in ("real/ffhq", "real/celeba/ann", "fake/sdxl"):
        (tmp_path / place).mkdir(parents=True)
        for number in range(pictures):
            touch(tmp_path / place / f"{number}.jpg")
    listing = list_faces(tmp_path, folders=folders)
    found = {(file.label, file.source, file.generator, file.identity) for file in listing.files}
    whole = tmp_path.name
    assert found == (
        {(0, "ffhq", "", ""), (0, "celeba", "", "ann"), (1, "sdxl", "sdxl", "")}
        if sources
        else {(0, whole, "", "ffhq"), (0, whole, "", "celeba/ann"), (1, whole, "", "sdxl")}
    )
    assert len(listing.notes) == 1
    reals = list_class([tmp_path / "real"], 0, folders).files
    assert ({file.source for file in reals} == {"ffhq", "celeba"}) == sources


def test_many_small_folders_are_people(tmp_path):
    for person in range(30):
        for label in ("real", "fake"):
            for number in range(41 if person < 20 else 1):
                touch(tmp_path / label / f"person{person}" / f"{number}.jpg")
    assert {file.source for file in list_faces(tmp_path).files} == {tmp_path.name}
