"""What is kept of many faces: counts, sums and histograms, never a picture or a single face."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.judging.results import FaceTraits
from edge_runtime.model.contract import Verdict

VERDICTS = tuple(Verdict)
DARK = 60.0
"""A face whose mean green is below this, in [0, 255], counts as seen at night: light alone changes features."""

LIGHTS = ("dark", "bright")

BINS = 20
TRAITS: Mapping[str, NDArray[np.float64]] = {
    "score": np.linspace(0.0, 1.0, BINS + 1),
    "size": np.geomspace(32.0, 1024.0, BINS + 1),
    "sharpness": np.linspace(0.25, 0.85, BINS + 1),
    "light": np.linspace(0.0, 255.0, BINS + 1),
    "blockiness": np.linspace(0.9, 2.4, BINS + 1),
}
"""Edges of the histograms; values beyond them count in the outermost bins."""


class Summary:
    """Faces by light and verdict.

    Attributes:
        counts: [2, 3], by LIGHTS and VERDICTS.
        sums, outers: of the positions and of their outer products, [2, 3, d] and [2, 3, d, d].
        histograms: of the TRAITS, [2, 3, 5, BINS].
        unjudged: how many faces were too dark or too blurred to be judged.
    """

    def __init__(self, width: int) -> None:
        shape = (len(LIGHTS), len(VERDICTS))
        self.counts = np.zeros(shape, np.int64)
        self.sums = np.zeros((*shape, width))
        self.outers = np.zeros((*shape, width, width))
        self.histograms = np.zeros((*shape, len(TRAITS), BINS), np.int64)
        self.unjudged = 0

    @property
    def width(self) -> int:
        """The number of coordinates of a position, d."""
        return int(self.sums.shape[-1])

    @property
    def faces(self) -> int:
        """How many faces were judged."""
        return int(self.counts.sum())

    def add(self, traits: FaceTraits, verdict: Verdict, score: float) -> None:
        """Add one judged face."""
        cell = (int(traits.light >= DARK), VERDICTS.index(verdict))
        self.counts[cell] += 1
        position = traits.position.astype(np.float64)
        self.sums[cell] += position
        self.outers[cell] += np.outer(position, position)
        values = (score, traits.size, traits.sharpness, traits.light, traits.blockiness)
        for row, (edges, value) in enumerate(zip(TRAITS.values(), values, strict=True)):
            self.histograms[(*cell, row, int(np.clip(np.searchsorted(edges, value, "right") - 1, 0, BINS - 1)))] += 1

    def __iadd__(self, other: "Summary") -> "Summary":
        self.counts += other.counts
        self.sums += other.sums
        self.outers += other.outers
        self.histograms += other.histograms
        self.unjudged += other.unjudged
        return self

    def moments(self, cell: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return mean [d] and covariance [d, d] of a cell of `counts`; it must hold two faces."""
        count = self.counts[cell]
        mean = self.sums[cell] / count
        return mean, (self.outers[cell] - count * np.outer(mean, mean)) / (count - 1)

    def to_arrays(self) -> dict[str, Any]:
        """Return arrays to store: means and, in half precision, upper triangles of covariances, of the cells in use.

        Sums and outer products follow from these, and covariances survive half precision where outer products don't.
        """
        used = np.argwhere(self.counts > 1)
        upper = np.triu_indices(self.width)
        moments = [self.moments((light, verdict)) for light, verdict in used]
        return {
            "width": self.width,
            "counts": self.counts,
            "means": np.divide(self.sums, np.maximum(self.counts, 1)[..., None]).astype(np.float32),
            "covariances": np.array([covariance[upper] for _, covariance in moments]).astype(np.float16),
            "histograms": self.histograms.astype(np.uint32),
            "unjudged": self.unjudged,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> "Summary":
        """Read what `to_arrays` returned.

        Raises:
            ValueError, KeyError: it is not that.
        """
        width = int(arrays["width"])
        found, upper = cls(width), np.triu_indices(width)
        found.counts[:] = arrays["counts"]
        found.sums[:] = arrays["means"] * found.counts[..., None]
        found.histograms[:] = arrays["histograms"]
        found.unjudged = int(arrays["unjudged"])
        for (light, verdict), values in zip(np.argwhere(found.counts > 0), _rows(arrays, found), strict=True):
            mean = arrays["means"][light, verdict].astype(np.float64)
            half = np.zeros((width, width))
            half[upper] = values
            covariance = half + np.triu(half, 1).T
            count = int(found.counts[light, verdict])
            found.outers[light, verdict] = (count - 1) * covariance + count * np.outer(mean, mean)
        if not all(np.isfinite(part).all() for part in (found.sums, found.outers)):
            raise ValueError("a value is NaN or infinite")
        return found


def _rows(arrays: Mapping[str, Any], summary: Summary) -> list[NDArray[np.float64]]:
    """Return the stored covariances of the cells in use; a single face has none."""
    stored = iter(np.asarray(arrays["covariances"], np.float64))
    size = summary.width * (summary.width + 1) // 2
    return [next(stored) if count > 1 else np.zeros(size) for count in summary.counts[summary.counts > 0]]
