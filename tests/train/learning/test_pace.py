import time

from train.choices import Preset
from train.learning import pace
from train.learning.recipes import PRESETS

SMALL = PRESETS[Preset.DEMO].replace(input_size=32, batch=4)


def test_pace_is_the_median_without_warm_up(monkeypatch, tiny_backbone):
    times = iter([0, 50, 50, 52, 52, 54, 54, 58, 58, 60])
    monkeypatch.setattr(pace, "ENOUGH_S", 1000.0)
    monkeypatch.setattr(pace.time, "perf_counter", lambda: next(times))
    assert pace.images_per_second("tiny", SMALL) == 2.0


def test_slow_machine_is_measured_on_one_step(monkeypatch, tiny_backbone):
    monkeypatch.setattr(pace, "ENOUGH_S", 0.0)
    began = time.perf_counter()
    assert pace.images_per_second("tiny", SMALL) >= 4 / (time.perf_counter() - began)
