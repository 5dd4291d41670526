"""How far a summary is from the reference, and how far it may be by chance."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SIZES = (30, 50, 75, 100, 150, 200, 300)
"""Numbers of faces for which limits are drawn."""

DRAWS = 400


def frechet(mean: Floats, covariance: Floats, other_mean: Floats, other_covariance: Floats) -> Floats:
    """Return the Fréchet distance of Gaussians with means [..., d] and covariances [..., d, d].

    It is |m₁ − m₂|² + tr(C₁ + C₂ − 2 (C₁ C₂)^½), see Greco et al. 2024, "Unsupervised Concept Drift Detection from
    Deep Learning Representations in Real-time" (DriftLens).
    """
    values, vectors = np.linalg.eigh(covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))[..., None, :]) @ np.swapaxes(vectors, -1, -2)
    overlap = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ other_covariance @ root), 0.0)).sum(-1)
    traces = np.trace(covariance, axis1=-2, axis2=-1) + np.trace(other_covariance, axis1=-2, axis2=-1)
    return np.asarray(((mean - other_mean) ** 2).sum(-1) + traces - 2 * overlap)


def drawn_limits(count: int, mean: Floats, covariance: Floats, seed: int = 0) -> Floats:
    """Return for each of SIZES the greatest of DRAWS Fréchet distances between faces of one kind, [len(SIZES)].

    Both sides are drawn from the same Gaussian: so many new faces, and `count` faces as the reference, whose mean and
    covariance are only estimates.
    """
    rng = np.random.default_rng(seed)
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))

    def moments(faces: int) -> tuple[Floats, Floats]:
        drawn = rng.normal(size=(faces, len(mean))) @ root.T
        return drawn.mean(axis=0), np.cov(drawn, rowvar=False)

    limits = []
    for size in SIZES:
        pairs = [(*moments(count), *moments(size)) for _ in range(DRAWS)]
        limits.append(frechet(*(np.stack(part) for part in zip(*pairs, strict=True))).max())
    # More faces never allow for more, whatever chance drew.
    return np.maximum.accumulate(np.array(limits)[::-1])[::-1]


def limit_at(faces: int, limits: Floats) -> float:
    """Return the limit for a number of faces of at least SIZES[0], linear in 1 / faces between those of SIZES."""
    inverse = 1.0 / np.array(SIZES[::-1])
    return float(np.interp(1.0 / faces, inverse, limits[::-1]))
