"""Image degradations: JPEG compression, blur, scaling, noise, filming from a screen. Needs only Pillow and numpy."""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

KERNELS = (
    Image.Resampling.BOX,
    Image.Resampling.BILINEAR,
    Image.Resampling.HAMMING,
    Image.Resampling.BICUBIC,
    Image.Resampling.LANCZOS,
)


def jpeg(picture: Image.Image, quality: int) -> Image.Image:
    """Return the picture after JPEG of `quality` (1 to 95), 4:2:0."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality, subsampling=2)
    with Image.open(buffer) as saved:
        return saved.convert("RGB")


def blur(picture: Image.Image, sigma: float) -> Image.Image:
    """Return the picture after a Gaussian blur of `sigma` pixels."""
    return picture.filter(ImageFilter.GaussianBlur(sigma)) if sigma > 0 else picture


def rescale(
    picture: Image.Image,
    factor: float,
    down: Image.Resampling = Image.Resampling.BILINEAR,
    up: Image.Resampling = Image.Resampling.BILINEAR,
) -> Image.Image:
    """Return the picture made `factor` times as large with kernel `down`, and brought back to its size with `up`."""
    if factor == 1.0:
        return picture
    small = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    return picture.resize(small, down).resize(picture.size, up)


def noise(picture: Image.Image, sigma: float, generator: np.random.Generator) -> Image.Image:
    """Return the picture with Gaussian noise of `sigma` grey levels."""
    pixels = np.asarray(picture, dtype=np.float32)
    grain = generator.standard_normal(pixels.shape, dtype=np.float32)
    return _picture(pixels + sigma * grain)


def recapture(picture: Image.Image, generator: np.random.Generator, strength: float = 1.0) -> Image.Image:
    """Return the picture as if a camera had filmed it from a screen: gamma, moiré, a slight turn of the view, blur.

    `strength` scales all of it; 1 is a careful recapture.
    """
    pixels = np.asarray(picture, dtype=np.float32) / 255.0
    gamma = 1.0 + strength * generator.uniform(-0.2, 0.2)
    wave = _moire(picture.size, generator)[..., None]
    shown = _picture(255.0 * (pixels**gamma) * (1.0 + 0.06 * strength * wave))
    corners = _corners(picture.size, generator, 0.03 * strength)
    seen = shown.transform(picture.size, Image.Transform.PERSPECTIVE, corners, Image.Resampling.BICUBIC)
    return blur(seen, 0.5 * strength)


def _moire(size: tuple[int, int], generator: np.random.Generator) -> NDArray[np.float32]:
    """Return the beat of two grids, a screen's and a sensor's, in [-1, 1], [H, W, and shifted a little by channel]."""
    width, height = size
    y, x = np.mgrid[:height, :width].astype(np.float32)
    angles, periods = generator.uniform(0, np.pi, 2), generator.uniform(2.2, 9.0, 2)
    waves = [np.sin(2 * np.pi * (x * np.cos(a) + y * np.sin(a)) / p) for a, p in zip(angles, periods, strict=True)]
    beat: NDArray[np.float32] = (waves[0] * waves[1]).astype(np.float32)
    return beat


def _corners(size: tuple[int, int], generator: np.random.Generator, share: float) -> Sequence[float]:
    """Return the eight coefficients of a perspective that moves each corner inwards by up to `share` of the size."""
    width, height = size
    target = [(0, 0), (width, 0), (width, height), (0, height)]
    moved = generator.uniform(0, share, (4, 2)) * (width, height)
    signs = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)])
    source = np.array(target) + signs * moved
    rows, values = [], []
    for (x, y), (u, v) in zip(target, source, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return [float(value) for value in np.linalg.solve(np.array(rows, float), np.array(values, float))]


def _picture(pixels: NDArray[np.float32]) -> Image.Image:
    return Image.fromarray(np.clip(pixels + 0.5, 0, 255).astype(np.uint8))
