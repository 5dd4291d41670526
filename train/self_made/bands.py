"""Frequency bands of a picture swapped with another's, so that no band alone tells a reconstruction from a photograph.

After AlignedForensics (Rajan et al. 2024) and DDA (Chen et al. 2025): reconstructions are smoother than photographs,
and a detector that trains on both learns "sharper is fake" unless their spectra are made alike.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn, idctn
from scipy.special import expit

BIN = 1 / 64
"""Width of a bin of the radial power spectrum, in cycles per pixel."""

STRONGEST = 3.0
"""Factor by which a reconstruction's frequencies may be strengthened; where more is missing, the original fills up."""

EDGE = 0.0075
"""Width of a band's soft edge, in cycles per pixel."""

LUMA_CHROMA = np.array([(0.299, 0.587, 0.114), (-0.169, -0.331, 0.5), (0.5, -0.419, -0.081)], np.float32)
"""From RGB to the planes that JPEG stores (JFIF 1.02)."""

Floats = NDArray[np.float32]


def swap_bands(made: Floats, original: Floats, random: np.random.Generator) -> Floats:
    """Return `made` [H, W, 3] with the radial power of `original`, and with some of its frequencies.

    The lowest ones, which hold colour and light, are always the original's. At random, so are a low band, a ring, a
    high band or nothing else.
    """
    height, width = original.shape[:2]
    # Cosines, since a Fourier transform sees an edge where the picture ends, and little else at high frequencies.
    ours, theirs = (dctn(pixels @ LUMA_CHROMA.T, axes=(0, 1), norm="ortho") for pixels in (made, original))
    radius = np.hypot(np.arange(height)[:, None] / (2 * height), np.arange(width) / (2 * width)).astype(np.float32)

    def below(limit: float) -> Floats:
        return expit((limit - radius) / EDGE)

    swapped = below(random.uniform(0.02, 0.05))
    draw = random.random()
    if draw < 0.4:
        swapped = np.maximum(swapped, below(random.uniform(0.03, 0.25)))
    elif draw < 0.7:
        start = random.uniform(0.05, 0.4)
        ring = below(start + random.uniform(0.05, 0.2)) * (1.0 - below(start))
        swapped = np.maximum(swapped, ring)
    elif draw < 0.85:
        swapped = np.maximum(swapped, 1.0 - below(random.uniform(0.2, 0.4)))
    missing = gain(ours, theirs, radius)
    share = np.minimum(missing, STRONGEST) / missing
    # The two do not correlate where much is missing, so their powers add up.
    ours = share * missing * ours + np.sqrt(1.0 - share**2) * theirs
    mixed = ours + (theirs - ours) * swapped[..., None]
    mixed *= gain(mixed, theirs, radius)
    pixels: Floats = idctn(mixed, axes=(0, 1), norm="ortho") @ np.linalg.inv(LUMA_CHROMA).T
    return pixels


def gain(ours: Floats, theirs: Floats, radius: Floats) -> Floats:
    """Return the factor [H, W, C] for each frequency of `ours` that gives it the radial power of `theirs`."""
    place = radius / BIN
    bins = place.astype(int).ravel()
    centres = np.arange(bins.max() + 1) + 0.5
    factors = []
    for plane in range(ours.shape[-1]):
        powers = [np.bincount(bins, each[..., plane].ravel() ** 2) for each in (ours, theirs)]
        ratio = np.sqrt((powers[1] + 1.0) / (powers[0] + 1.0))
        factors.append(np.interp(place, centres, ratio).astype(np.float32))
    return np.stack(factors, axis=-1)
