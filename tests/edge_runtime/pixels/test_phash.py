import io

import numpy as np
from PIL import Image
from scipy.fft import dctn

from edge_runtime.pixels.phash import NEAR_BITS, perceptual_hash
from train.sample_faces import draw_face


def distance(one: Image.Image, other: Image.Image) -> int:
    return bin(int(perceptual_hash(one), 16) ^ int(perceptual_hash(other), 16)).count("1")


def test_hashes_survive_compression_and_scaling():
    picture = Image.fromarray(draw_face(1, 256))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=40)
    with Image.open(file) as low:
        assert distance(picture, low.resize((200, 200))) <= NEAR_BITS
    assert distance(picture, Image.fromarray(draw_face(2, 256))) > 10


def test_hash_is_of_the_cosine_transform():
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (32, 32), np.uint8))
    low = dctn(np.asarray(picture, np.float64))[:8, :8].ravel()
    assert int(perceptual_hash(picture), 16) == int("".join("01"[int(bit > np.median(low[1:]))] for bit in low), 2)
