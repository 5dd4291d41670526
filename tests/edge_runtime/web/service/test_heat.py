"""Heat maps."""

import io

import numpy as np
import pytest
from PIL import Image

from edge_runtime.detector import Detector
from edge_runtime.model.contract import Calibration, Framing, ModelContract, PixelRecipe, Verdict
from edge_runtime.pixels.preprocess import face_region
from edge_runtime.web.service.heat import CELLS, HeatMap, HeatNetwork, beyond_threshold, heat_map

CONTRACT = ModelContract("net", input_size=32, framing=Framing.WHOLE, pixels=PixelRecipe(resize_to=32))


def rows_of(*maps: np.ndarray) -> np.ndarray:
    """Return the network's output for crops whose evidence for fake is `maps`."""
    return np.stack([np.concatenate([np.zeros(values.size), values.ravel()]) for values in maps]).astype(np.float32)


def test_map_is_evidence_for_fake_minus_real():
    real, fake = np.zeros((4, 4), np.float32), np.zeros((4, 4), np.float32)
    fake[0, 0], real[3, 3] = 2.0, 4.0
    rows = np.concatenate([real.ravel(), fake.ravel()])[None]
    found = heat_map(rows, (100, 60), None, CONTRACT, mean=-2 / 16)
    assert found.values[0, 0] == 0.5
    assert found.values[3, 3] == -1.0
    assert found.region == face_region((100, 60), None, CONTRACT) == (20, 0, 80, 60)


def test_centre_crop_covers_the_middle():
    contract = CONTRACT.replace(pixels=PixelRecipe(resize_to=64))
    found = heat_map(rows_of(np.eye(4)), (128, 128), None, contract)
    assert found.region == (32, 32, 96, 96)
    assert found.values.shape == (4, 4)


def test_five_crops_are_averaged():
    contract = CONTRACT.replace(pixels=PixelRecipe(resize_to=64, crops=5))
    maps = [np.zeros((4, 4)) for _ in range(5)]
    maps[2] += 1.0
    found = heat_map(rows_of(*maps), (128, 128), None, contract, labelled=False)
    assert found.region == (0, 0, 128, 128)
    assert found.values.shape == (CELLS, CELLS)
    assert found.values[1, CELLS - 2] == 1.0
    assert found.values[CELLS - 2, 1] == 0.0
    assert 0.0 < found.values[CELLS // 2 - 2, CELLS // 2 + 2] < 1.0


def test_native_crops_lie_where_they_were_cut():
    contract = CONTRACT.replace(pixels=PixelRecipe(resize_to=None))
    found = heat_map(rows_of(np.eye(4)), (96, 96), None, contract)
    assert found.region == (32, 32, 64, 64)


def test_empty_map_is_transparent():
    found = heat_map(rows_of(np.zeros((4, 4))), (64, 64), None, CONTRACT)
    assert not found.values.any()
    assert Image.open(io.BytesIO(found.to_png(Verdict.UNCERTAIN))).getextrema()[3] == (0, 0)


def test_unlabelled_map_is_positive():
    maps = np.concatenate([np.eye(4).ravel(), np.eye(4).ravel()])[None].astype(np.float32)
    found = heat_map(maps, (64, 64), None, CONTRACT, labelled=False)
    assert found.values.min() == 0.0
    assert found.values.max() == 1.0
    assert not found.labelled


@pytest.mark.parametrize("verdict", Verdict)
def test_only_what_speaks_for_the_verdict_is_drawn(verdict):
    values = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, -1, -1], [0, 0, -1, -1]], np.float32)
    drawn = np.asarray(Image.open(io.BytesIO(HeatMap((0, 0, 1, 1), values).to_png(verdict)))).astype(int)
    orange, blue = (((sign * (drawn[..., 0] - drawn[..., 2]) > 0) & (drawn[..., 3] > 130)).mean() for sign in (1, -1))
    assert (orange > 0.1, blue > 0.1) == (verdict is not Verdict.REAL, verdict is not Verdict.FAKE)
    assert orange + blue < 0.6


@pytest.mark.parametrize("logit", [-9.0, 3.0, 9.0, 20.0, 60.0])
def test_map_never_argues_against_its_verdict(logit):
    calibration = Calibration(temperature=15.0, low=0.56, high=0.72)
    score = calibration.score(logit)
    verdict = calibration.verdict(score)
    mean = beyond_threshold(score, verdict, calibration)
    found = heat_map(rows_of(np.eye(4)), (64, 64), None, CONTRACT, mean=mean)
    if verdict is not Verdict.UNCERTAIN:
        assert (found.values.mean() > 0) == (verdict is Verdict.FAKE)
        assert mean == pytest.approx(logit - 15.0 * {Verdict.REAL: 0.241162, Verdict.FAKE: 0.944462}[verdict], abs=1e-4)


def test_network_gives_the_detectors_logits(whole_detector):
    engine = whole_detector.engine
    network = HeatNetwork(engine)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    rows = network.answer(pixels).logits
    assert network.available
    assert rows.shape == (3, 2 + 2 * 8 * 8)
    np.testing.assert_allclose(rows[:, :2], engine.logits(pixels), atol=1e-6)
    maps = rows[:, 2:].reshape(3, 2, -1).mean(axis=2)
    np.testing.assert_allclose(maps, rows[:, :2], atol=1e-5)


def test_network_without_a_map(bundle):
    assert not HeatNetwork(Detector(bundle).engine).available
