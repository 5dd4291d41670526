import cv2
import numpy as np
import pytest
from PIL import Image

from benchmarks.demo.pictures import choose_held_out, demo_pictures, write_slides
from edge_runtime.errors import DataError
from train.commands.shards import write_shards
from train.data.build import load_data
from train.sample_faces import make_samples


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faces")
    make_samples(folder, 8, size=64)
    return folder


def test_held_out_faces_of_both_classes_are_copied(faces, tmp_path):
    assert demo_pictures(faces, tmp_path / "pictures", 1) == 0
    names = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert names == ["fake_02.jpg", "real_01.jpg"]
    held_out = [face.path.read_bytes() for face in load_data(faces).split("test") if face.label == 0]
    assert (tmp_path / "pictures" / "real_01.jpg").read_bytes() in held_out


def test_pictures_in_tar_shards_are_copied(faces, tmp_path):
    catalog = load_data(faces)
    write_shards(catalog, tmp_path / "shards", 20_000)
    for data in (faces, tmp_path / "shards"):
        demo_pictures(data, tmp_path / data.name / "pictures", 1)
    plain, packed = (sorted((tmp_path / name / "pictures").iterdir()) for name in (faces.name, "shards"))
    assert [path.name for path in plain] == [path.name for path in packed]
    assert [path.read_bytes() for path in plain] == [path.read_bytes() for path in packed]


def test_only_own_pictures_are_replaced(faces, tmp_path):
    (tmp_path / "pictures").mkdir()
    for name in ("fake_09.jpg", "holiday.jpg"):
        (tmp_path / "pictures" / name).write_text("old")
    demo_pictures(faces, tmp_path / "pictures", 1)
    assert not (tmp_path / "pictures" / "fake_09.jpg").exists()
    assert (tmp_path / "pictures" / "holiday.jpg").exists()


def test_empty_test_split_is_refused():
    with pytest.raises(DataError, match="test split is empty"):
        choose_held_out([], 3)


@pytest.mark.parametrize("size", [(64, 64), (3000, 1000)])
def test_slides_reduce_only_large_pictures(tmp_path, size):
    Image.new("RGB", size, (200, 100, 50)).save(tmp_path / "face.png")
    write_slides([tmp_path / "face.png"], tmp_path / "clip.avi")
    video = cv2.VideoCapture(str(tmp_path / "clip.avi"))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 5
    frame = video.read()[1][..., ::-1].astype(int)
    shown = np.abs(frame - (200, 100, 50)).max(-1) < 12
    assert shown.sum() == pytest.approx(64 * 64 if size[0] == 64 else 640 * 213, rel=0.02)
