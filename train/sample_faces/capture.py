"""Two ways from a drawn face to a picture: a model of a camera and a model of a generator.

Both end in the same JPEG encoder with the same settings. They differ only in what forensics looks for: a sensor's
noise, correlated by demosaicing, or the regular traces of upsampling.
"""

import io
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Picture = NDArray[np.uint8]
Values = NDArray[Any]
"""float32, in [0, 1] unless stated otherwise."""

JPEG_QUALITY, JPEG_SUBSAMPLING = 95, "4:2:0"
GAMMA = 2.2

_PHASES = ((0, 0), (0, 1), (1, 0), (1, 1))
"""Positions in a 2×2 block: down, across."""

_BETWEEN = np.array([[0.25, 0.5, 0.25], [0.5, 1.0, 0.5], [0.25, 0.5, 0.25]], np.float32)
_BIASES = (1.4 / 255.0, -0.2 / 255.0, 0.2 / 255.0, -1.4 / 255.0)
_LEARNED = np.random.default_rng(20_140).normal(0.0, 1.0, (4, 3, 3)).astype(np.float32)


def camera(picture: Picture, rng: np.random.Generator) -> Picture:
    """Return `picture` as a camera takes it, uint8 [H, W, 3]: lens, Bayer sensor, noise, demosaicing, white balance.

    The noise model is the usual one (Foi et al. 2008, "Practical Poissonian-Gaussian noise modeling and fitting for
    single-image raw-data"): variance = shot · signal + read², for signals in [0, 1].
    """
    light: Values = (picture.astype(np.float32) / 255.0) ** GAMMA
    light = cv2.GaussianBlur(light, (0, 0), float(rng.uniform(0.45, 0.75)))
    balance = np.array([rng.uniform(1.4, 2.2), 1.0, rng.uniform(1.3, 2.0)], np.float32)
    # Bayer pattern, 0 or 1 [H, W, 3]: which pixel sees which colour.
    masks = np.zeros(picture.shape, np.float32)
    down, across = _PHASES[int(rng.integers(4))]
    masks[down::2, across::2, 0] = 1.0
    masks[1 - down :: 2, 1 - across :: 2, 2] = 1.0
    masks[..., 1] = 1.0 - masks[..., 0] - masks[..., 2]
    raw = ((light / balance) * masks).sum(2)
    shot, read = np.exp(rng.uniform(np.log(0.0004), np.log(0.0025))), rng.uniform(0.001, 0.004)
    raw += np.sqrt(shot * raw + read**2) * rng.standard_normal(raw.shape).astype(np.float32)
    # Demosaic: interpolate each pixel's three colours from its neighbours' one each.
    known, light = (
        cv2.filter2D(values, -1, _BETWEEN, borderType=cv2.BORDER_REFLECT_101)
        for values in (masks, np.clip(raw, 0.0, 1.0)[..., None] * masks)
    )
    light = light / known * balance
    return np.round(np.clip(light, 0.0, 1.0) ** (1.0 / GAMMA) * 255.0).astype(np.uint8)


def generator(picture: Picture, rng: np.random.Generator, detail: float = 0.03) -> Picture:
    """Return `picture` as a generator synthesizes it, uint8 [H, W, 3]: at half the resolution, then upsampled.

    The last layer is a sub-pixel convolution (Shi et al. 2016, "Real-Time Single Image and Video Super-Resolution"):
    one kernel and bias for each of the four positions in a 2×2 block. They differ slightly, as learned ones do, which
    leaves traces of period 2 (Odena et al. 2016, "Deconvolution and Checkerboard Artifacts"). Texture is noise injected
    at a quarter and at half of the resolution (Karras et al. 2019, StyleGAN).

    Args:
        picture: height and width are even.
        rng: draws the texture.
        detail: standard deviation of the injected texture, for values in [0, 1].
    """
    height, width = picture.shape[:2]
    low = cv2.resize(picture.astype(np.float32) / 255.0, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    coarse = cv2.copyMakeBorder(_noise(rng, height // 4, width // 4), 0, 1, 0, 1, cv2.BORDER_REFLECT_101)
    texture = _upsampled(coarse)[: height // 2, : width // 2] + 0.5 * _noise(rng, height // 2, width // 2)
    sharpened = low + 0.35 * (low - cv2.GaussianBlur(low, (0, 0), 1.0))
    made = _upsampled(sharpened + detail * texture)
    return np.round(np.clip(made, 0.0, 1.0) * 255.0).astype(np.uint8)


def _noise(rng: np.random.Generator, height: int, width: int) -> Values:
    """Return noise [H, W, 3] that is mostly the same in the three colours."""
    grey, tint = rng.standard_normal((height, width, 1)), rng.standard_normal((height, width, 3))
    return (0.8 * grey + 0.6 * tint).astype(np.float32)


def _upsampled(low: Values) -> Values:
    """Return [2H, 2W, 3] from [H, W, 3] by a sub-pixel convolution: linear interpolation, with learned unevenness."""
    height, width = low.shape[:2]
    lines = (np.array([0.25, 0.75, 0.0], np.float32), np.array([0.0, 0.75, 0.25], np.float32))
    result = np.empty((2 * height, 2 * width, 3), np.float32)
    for (down, across), uneven, bias in zip(_PHASES, _LEARNED, _BIASES, strict=True):
        kernel = np.outer(lines[down], lines[across]) + 0.02 * (uneven - uneven.mean())
        result[down::2, across::2] = cv2.filter2D(low, -1, kernel, delta=bias, borderType=cv2.BORDER_REFLECT_101)
    return result


def encode(picture: Picture) -> bytes:
    """Return the picture as JPEG, with the settings that all samples share."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=JPEG_QUALITY, subsampling=JPEG_SUBSAMPLING)
    return file.getvalue()
