"""Frequency bands swapped between a reconstruction and its original."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from train.self_made.bands import swap_bands


@pytest.fixture
def original(draw):
    return np.asarray(draw(1, (121, 90)), np.float32)


def power(pixels):
    """Mean power above 0.35 cycles per pixel."""
    radius = np.hypot(np.fft.fftfreq(pixels.shape[0])[:, None], np.fft.fftfreq(pixels.shape[1])[None])
    return (np.abs(np.fft.fft2(pixels, axes=(0, 1)))[radius > 0.35] ** 2).mean()


@pytest.mark.parametrize("change", [ImageFilter.GaussianBlur(0.6), ImageFilter.UnsharpMask(1, 80, 0)])
def test_neither_smoother_nor_sharper(original, change):
    made = np.asarray(Image.fromarray(original.astype(np.uint8)).filter(change), np.float32)
    assert not 0.7 < power(made) / power(original) < 1.4
    ratios = [power(swap_bands(made, original, np.random.default_rng(seed))) / power(original) for seed in range(20)]
    assert 0.9 < np.median(ratios) < 1.1


def test_colour_and_light_are_the_originals(original):
    made = original * 0.8 + 20
    swapped = swap_bands(made, original, np.random.default_rng(1))
    assert np.abs(swapped.mean((0, 1)) - original.mean((0, 1))).max() < 0.1
    assert swapped.dtype == np.float32


def test_traces_stay(original):
    made = original.copy()
    made[::2, ::2] += 24
    changes = [np.abs(swap_bands(made, original, np.random.default_rng(seed)) - original).mean() for seed in range(20)]
    assert np.median(changes) > 1
