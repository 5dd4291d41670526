"""What is kept of many faces: counts, sums and histograms, never a picture or a single face."""

from bisect import bisect_right
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.judging.results import FaceTraits
from edge_runtime.model.contract import Verdict

UNLIKE = "unlike"
KINDS = (*(verdict.value for verdict in Verdict), UNLIKE)
"""The verdicts, and apart from the other uncertain faces those unlike all that the network learned: of these, few and
far from all others, the number tells more than their features do.
"""

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

_INNER_EDGES = tuple(edges[1:-1].tolist() for edges in TRAITS.values())


class Summary:
    """Faces by light and kind.

    Attributes:
        counts: [2, 4], by LIGHTS and KINDS.
        sums, outers: of the positions and of their outer products, [2, 4, d] and [2, 4, d, d]; zero for UNLIKE.
        histograms: of the TRAITS, [2, 4, 5, BINS].
        unjudged: how many faces were too dark or too blurred to be judged.
    """

    def __init__(self, width: int) -> None:
        shape = (len(LIGHTS), len(KINDS))
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

    def add(self, traits: FaceTraits, kind: str, score: float) -> None:
        """Add one judged face of a kind."""
        cell = (int(traits.light >= DARK), KINDS.index(kind))
        self.counts[cell] += 1
        if kind != UNLIKE:
            position = traits.position.astype(np.float64)
            self.sums[cell] += position
            self.outers[cell] += np.outer(position, position)
        values = (score, traits.size, traits.sharpness, traits.light, traits.blockiness)
        histograms = self.histograms[cell]
        for row, (edges, value) in enumerate(zip(_INNER_EDGES, values, strict=True)):
            histograms[row, bisect_right(edges, value)] += 1

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
        used = np.argwhere(self.counts[:, :-1] > 1)
        upper = np.triu_indices(self.width)
        moments = [self.moments((light, kind)) for light, kind in used]
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
            ValueError, KeyError, StopIteration: it is not that.
        """
        width = int(arrays["width"])
        found, upper = cls(width), np.triu_indices(width)
        found.counts[:] = arrays["counts"]
        found.sums[:] = arrays["means"] * found.counts[..., None]
        found.histograms[:] = arrays["histograms"]
        found.unjudged = int(arrays["unjudged"])
        known = found.counts[:, :-1]
        rows = iter(np.asarray(arrays["covariances"], np.float64))
        for light, kind in np.argwhere(known > 0):
            count = int(known[light, kind])
            mean = arrays["means"][light, kind].astype(np.float64)
            half = np.zeros((width, width))
            half[upper] = next(rows) if count > 1 else 0.0
            covariance = half + np.triu(half, 1).T
            found.outers[light, kind] = (count - 1) * covariance + count * np.outer(mean, mean)
        if not all(np.isfinite(part).all() for part in (found.sums, found.outers)):
            raise ValueError("a value is NaN or infinite")
        return found
