import numpy as np
import pytest
import torch
from helpers.networks import SIDE, TinyNet

from edge_runtime.errors import DataError
from edge_runtime.model.contract import ModelContract
from edge_runtime.pixels.pictures import read_picture
from edge_runtime.pixels.preprocess import face_pixels
from train.data.build import load_data
from train.data.sample import pick_faces
from train.evaluation.logits import BATCH
from train.learning import validation
from train.learning.validation import renew_statistics
from train.models.checkpoint import INPUTS
from train.models.network import normalize

CONTRACT = ModelContract("tiny", input_size=SIDE, pixels=INPUTS["native"])
CPU = torch.device("cpu")


@pytest.fixture
def network():
    """A network whose statistics hardly move in a short run, like EfficientNet's, with a dropout."""
    torch.manual_seed(0)
    model = TinyNet(2)
    model.body.insert(3, torch.nn.Dropout(0.5))
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 0.01
            layer.running_mean.fill_(9.0)
    return model.train()


def test_renewed_statistics_are_those_of_plain_faces(network, faces):
    records = load_data(faces).records
    renew_statistics(network, CONTRACT, records, 40, CPU)
    chosen = pick_faces(records, 32)  # a whole batch
    pixels = np.concatenate([face_pixels(read_picture(face.path), None, CONTRACT) for face in chosen])
    network.eval()
    with torch.no_grad():
        maps = network.body[0](normalize(torch.from_numpy(pixels), CONTRACT))
        torch.testing.assert_close(network.body[1].running_mean, maps.mean((0, 2, 3)))
        torch.testing.assert_close(network.body[1].running_var, maps.var((0, 2, 3)))
        seen = torch.nn.functional.batch_norm(maps, None, None, *network.body[1].parameters(), training=True)
        torch.testing.assert_close(network.body[5].running_mean, network.body[4](seen.relu()).mean((0, 2, 3)))
    assert {layer.momentum for layer in network.modules() if isinstance(layer, torch.nn.BatchNorm2d)} == {0.01}


def test_every_batch_of_statistics_has_both_classes(network, faces, monkeypatch):
    shown = []
    monkeypatch.setattr(validation, "judge", lambda network, contract, chosen: shown.extend(chosen) or [[0.0, 0.0]])
    monkeypatch.setattr(validation, "require_logits", lambda records, logits: None)
    records = sorted(load_data(faces).records, key=lambda face: face.label) * 4
    renew_statistics(network, CONTRACT, records, 2 * BATCH, CPU)
    labels = np.array([face.label for face in shown]).reshape(2, BATCH)
    assert labels.mean(axis=1).tolist() == [0.5, 0.5]


def test_statistics_need_readable_faces(network, make_faces):
    folder = make_faces(count=4)
    records = load_data(folder).records
    records[0].path.unlink()
    with pytest.raises(DataError, match="not found"):
        renew_statistics(network, CONTRACT, records, 8, CPU)


def test_statistics_stay_where_none_are_asked_for(network, faces):
    renew_statistics(network, CONTRACT, load_data(faces).records, 0, CPU)
    assert network.body[1].running_mean.unique().tolist() == [9.0]
