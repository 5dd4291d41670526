"""The part of a bundle's reference statistics that a camera's faces are compared with."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.model.bundle import Bundle
from edge_runtime.model.reference import REFERENCE, reference_arrays
from edge_runtime.monitoring.distance import SIZES, drawn_limits
from edge_runtime.monitoring.summary import Summary

ENOUGH = 40
"""Faces that a cell of the summary needs to be compared with."""


@dataclass(frozen=True)
class Baseline:
    """Faces that the network was not trained on, judged by it.

    Attributes:
        summary: of them.
        limits: Fréchet distances that chance explains, by light, verdict and SIZES, [2, 3, len(SIZES)]; NaN where the
            summary holds fewer than ENOUGH faces.
        uncertain, labelled: how many real and fake faces were uncertain, and how many there were, [2].
        digest: of the file it is from; empty if it is from none.
    """

    summary: Summary
    limits: NDArray[np.float64]
    uncertain: NDArray[np.int64]
    labelled: NDArray[np.int64]
    digest: str = ""

    @classmethod
    def describe(cls, summary: Summary, uncertain: NDArray[np.int64], labelled: NDArray[np.int64]) -> "Baseline":
        """Draw the limits for a summary."""
        counts = summary.counts[:, :-1]
        limits = np.full((*counts.shape, len(SIZES)), np.nan)
        for light, verdict in np.argwhere(counts >= ENOUGH):
            cell = (int(light), int(verdict))
            limits[cell] = drawn_limits(int(summary.counts[cell]), *summary.moments(cell))
        return cls(summary, limits, uncertain, labelled)

    def to_arrays(self) -> dict[str, Any]:
        """Return arrays to store beside the other reference statistics."""
        own = {"drift_limits": self.limits, "uncertain": self.uncertain, "labelled": self.labelled}
        return {**self.summary.to_arrays(), **own}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any], digest: str = "") -> "Baseline":
        """Read what `to_arrays` returned; raises ValueError or KeyError if it is not that."""
        summary = Summary.from_arrays(arrays)
        if (shape := arrays["drift_limits"].shape) != (*summary.counts[:, :-1].shape, len(SIZES)):
            raise ValueError(f"limits of shape {shape}")
        return cls(summary, arrays["drift_limits"], arrays["uncertain"], arrays["labelled"], digest)

    @classmethod
    def of(cls, bundle: Bundle) -> "Baseline | None":
        """Read a bundle's baseline; None if it has none.

        Raises:
            BundleError: the file was changed, or can't be read.
        """
        with reference_arrays(bundle) as file:
            if file is None or "drift_limits" not in file:
                return None
            return cls.from_arrays(file, bundle.manifest.files[REFERENCE])
