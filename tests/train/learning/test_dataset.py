import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from edge_runtime.model.contract import ModelContract
from edge_runtime.pixels.pictures import read_picture
from edge_runtime.pixels.preprocess import face_pixels
from train.data.build import load_data
from train.learning.augment import FULL
from train.learning.dataset import MOST_EPOCHS, FaceDataset, collate
from train.models.checkpoint import INPUTS

CONTRACT = ModelContract("resnet18", input_size=48, pixels=INPUTS["native"])


@pytest.fixture(scope="module")
def records(faces):
    return load_data(faces).records


def test_plain_sample_equals_the_boards_pixels(records):
    for pixels in ("native", "resize", "article"):
        contract = CONTRACT.replace(pixels=INPUTS[pixels], input_size=48)
        sample, label = FaceDataset(records, contract, {})[3]
        if pixels == "native":
            expected = face_pixels(read_picture(records[3].path), None, contract)[0]
            assert np.array_equal(sample.numpy(), expected)
        assert sample.shape == (48, 48, 3)
        assert label == records[3].label


def test_sample_depends_on_seed_and_epoch(records):
    first, same, other = (FaceDataset(records, CONTRACT, FULL, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first[5][0], same[5][0])
    for later in (1, MOST_EPOCHS):  # the next epoch, and the second draw of a face in this one
        keys = ((index, later * len(records) + index) for index in range(5))
        assert any(not np.array_equal(first[key][0], first[again][0]) for key, again in keys)
    assert any(not np.array_equal(first[index][0], other[index][0]) for index in range(5))


def test_crops_grow_by_epoch(records):
    data = FaceDataset(records, CONTRACT, FULL, sizes=(32, 40, 48))
    sides = [data[epoch * len(records)][0].shape[0] for epoch in (*range(5), 1 + 3 * MOST_EPOCHS)]
    assert sides == [32, 40, 48, 48, 48, 40]


def test_other_faces_stay_clean_in_each_epoch(records):
    plain = FaceDataset(records, CONTRACT, {})
    sparing = FaceDataset(records, CONTRACT, {"grey": 1.0}, clean_share=0.5)

    def untouched(epoch):
        keys = (epoch * len(records) + index for index in range(len(records)))
        return [torch.equal(sparing[key][0], plain[index][0]) for index, key in enumerate(keys)]

    assert 0.2 < np.mean(untouched(0)) < 0.8
    assert untouched(0) != untouched(1)


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "RGBA"])
def test_every_picture_mode_becomes_rgb(make_faces, draw, mode):
    folder = make_faces(count=3)
    picture = Image.blend(draw(31), Image.new("RGB", (64, 64), (220, 60, 30)), 0.6)
    picture.convert(mode).save(folder / "real" / "odd.tif")
    (record,) = (face for face in load_data(folder).records if face.path.name == "odd.tif")
    sample = FaceDataset([record], CONTRACT, {})[0][0]
    assert sample.shape == (48, 48, 3)
    expected = np.asarray(picture.convert("L").convert("RGB") if mode == "L" else picture)[8:56, 8:56]
    assert np.abs(sample.numpy().mean((0, 1)) - expected.mean((0, 1))).max() < 12


def test_turned_picture_is_seen_upright(make_faces, draw):
    folder = make_faces(count=3)
    exif = Image.Exif()
    exif[0x0112] = 6
    draw(32, (64, 96)).transpose(Image.Transpose.ROTATE_90).save(folder / "real" / "turned.png", exif=exif)
    (record,) = (face for face in load_data(folder).records if face.path.name == "turned.png")
    sample = FaceDataset([record], CONTRACT, {})[0][0]
    assert np.array_equal(sample.numpy(), face_pixels(draw(32, (64, 96)), None, CONTRACT)[0])


def test_batch_has_byte_pixels_and_integer_labels(records):
    loader = DataLoader(FaceDataset(records, CONTRACT, {}), batch_size=len(records), collate_fn=collate)
    pixels, labels = next(iter(loader))
    assert (pixels.dtype, labels.dtype) == (torch.uint8, torch.int64)
    assert pixels.max() > 1
    assert labels.tolist() == [("real", "fake").index(face.path.parent.name) for face in records]
