import shutil

import pytest

from edge_runtime.errors import DataError
from train.data.build import build_catalog
from train.data.layouts import LAYOUTS, find_layout, layout_files, mapped_files

TREES = {
    "140k": {
        "real_vs_fake/real-vs-fake/train/real/00001.jpg": (0, "train", "", ""),
        "real_vs_fake/real-vs-fake/valid/fake/X.jpg": (1, "valid", "StyleGAN", ""),
    },
    "faces": {"real/a.jpg": (0, "", "", ""), "fake/video7/b.jpg": (1, "", "", "video7")},
    "faces-in-splits": {"train/real/ann/a.jpg": (0, "train", "", "ann"), "val/fake/b.jpg": (1, "valid", "", "")},
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


@pytest.fixture
def tree(tmp_path):
    def make(name):
        for path in TREES[name]:
            file = tmp_path / "data" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        if name == "celeba":
            (tmp_path / "data" / "identity_CelebA.txt").write_text("000001.jpg 2880\n")
        return tmp_path / "data"

    return make


@pytest.mark.parametrize("name", [layout.name for layout in LAYOUTS])
def test_every_layout_is_recognized_and_read(tree, name):
    root = tree(name)
    layout = find_layout(root)
    assert layout.name == name
    found = {
        file.path.relative_to(root.resolve()).as_posix(): (file.label, file.split, file.generator, file.identity)
        for file in layout_files(root, layout)
    }
    assert found == TREES[name]
    assert all(file.source == "data" for file in layout_files(root, layout))


def test_every_layout_says_how_one_gets_it():
    assert all(len(layout.obtain) > 20 for layout in LAYOUTS)


def test_ifakefacedb_is_all_fake_and_its_folders_name_the_generator(tree):
    files = layout_files(root := tree("ifakefacedb"), find_layout(root))
    assert {file.label for file in files} == {1}
    assert len({file.generator for file in files}) == 2


def test_the_fakes_of_one_video_stay_together_with_its_photographs(tmp_path, draw):
    for number in range(4):
        for index, place in enumerate(("data_src/aligned", "data_dst/aligned", "data_dst/merged")):
            folder = tmp_path / f"workspace{number}" / place
            folder.mkdir(parents=True)
            for frame in range(4):
                draw(1000 * number + 100 * index + frame).save(folder / f"{frame}.png")
    sources = sorted(tmp_path.iterdir())
    found = [file for source in sources for file in layout_files(source, find_layout(source))]
    splits = {}
    for face in build_catalog(found).records:
        splits.setdefault((face.source, face.identity), set()).add(face.split)
    assert len(splits) == 8
    assert all(len(names) == 1 for names in splits.values())


def test_an_unknown_folder_says_what_is_missing(tmp_path):
    (tmp_path / "real").mkdir()
    shutil.rmtree(tmp_path / "real")
    with pytest.raises(DataError, match=r"holds no real/ and no fake/.*--real DIR --fake DIR"):
        find_layout(tmp_path)


def test_a_layout_can_be_named(tree):
    assert find_layout(tree("lfw"), "lfw").name == "lfw"
    with pytest.raises(DataError, match="--layout mine: unknown"):
        find_layout(tree("lfw"), "mine")


def test_mapped_folders_are_one_class_and_their_folders_are_people(tmp_path):
    (tmp_path / "Generated" / "run1").mkdir(parents=True)
    (tmp_path / "Generated" / "run1" / "a.png").touch()
    (found,) = mapped_files([tmp_path / "Generated"], 1)
    assert (found.label, found.source, found.generator, found.identity) == (1, "Generated", "Generated", "run1")
    with pytest.raises(DataError, match="no such folder"):
        mapped_files([tmp_path / "none"], 0)
