"""The autoencoders."""

import numpy as np
import pytest
import torch

from train.self_made.autoencoder import Autoencoder, Upsampling, reconstruct, train_autoencoder


@pytest.mark.parametrize("kind", Upsampling)
def test_any_size_comes_back(draw, kind):
    made = reconstruct(Autoencoder(kind).eval(), draw(1, (61, 50)), np.random.default_rng(3))
    assert (made.shape, made.dtype) == ((50, 61, 3), np.float32)


def test_learns_to_reconstruct_the_same_in_each_run(draw, monkeypatch):
    monkeypatch.setattr("train.self_made.autoencoder.BATCH", 4)
    pictures = [draw(seed, (160, 160)) for seed in range(4)]
    crops = np.stack([np.asarray(picture) for picture in pictures])
    one, two = (
        train_autoencoder(Upsampling.SHUFFLE, crops, "cpu", seed=1, steps=12, advance=lambda _: None) for _ in range(2)
    )
    assert all(torch.equal(first, second) for first, second in zip(one.parameters(), two.parameters(), strict=True))
    errors = [
        np.abs(reconstruct(network, pictures[0], np.random.default_rng(3)) - np.asarray(pictures[0])).mean()
        for network in (Autoencoder(Upsampling.SHUFFLE).eval(), one)
    ]
    assert errors[1] < 0.9 * errors[0]
