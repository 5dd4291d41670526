"""Perceptual hashes, which are nearly equal for nearly equal pictures."""

import numpy as np
from PIL import Image

NEAR_BITS = 6
"""Pictures whose perceptual hashes (64 bits) differ in at most this many bits are near-duplicates."""

SIDE, LOW = 32, 8
_DCT = np.cos(np.pi / SIDE * np.outer(np.arange(LOW), np.arange(SIDE) + 0.5))
"""The first rows of the discrete cosine transform (type II)."""


def perceptual_hash(picture: Image.Image) -> str:
    """Return 64 bits as 16 hexadecimal digits: signs of the low frequencies of a 32×32 grey thumbnail.

    Source: Zauner 2010, "Implementation and Benchmarking of Perceptual Image Hash Functions" (DCT hash).
    """
    thumbnail = picture.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX, reducing_gap=2)
    low = (_DCT @ np.asarray(thumbnail, dtype=np.float64) @ _DCT.T).ravel()
    bits = low > np.median(low[1:])
    return f"{int(''.join('1' if bit else '0' for bit in bits), 2):016x}"
