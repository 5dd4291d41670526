"""Reference statistics: where the features of familiar faces lie, to recognize faces unlike those a network learned."""

import contextlib
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.errors import BundleError
from edge_runtime.model.bundle import Bundle
from edge_runtime.model.contract import Precision

REFERENCE = "reference.npz"
FEATURES = "feature_vector"
"""The networks' output [1, C] from which the last layers compute the logits, under Model API's name."""

Array = NDArray[np.float32]


@contextlib.contextmanager
def reference_arrays(bundle: Bundle) -> Iterator[Mapping[str, Any] | None]:
    """Open a bundle's reference statistics as arrays by name; None if it has none.

    Raises:
        BundleError: the file was changed, or can't be read, also where the block finds that.
    """
    if REFERENCE not in bundle.manifest.files:
        yield None
        return
    path = bundle.file(REFERENCE)
    try:
        with np.load(path) as file:
            yield file
    except (OSError, ValueError, KeyError, TypeError, EOFError, StopIteration, zipfile.BadZipFile) as error:
        raise BundleError(f"{path}: can't be read ({error}); export it again") from None


@dataclass(frozen=True)
class Reference:
    """The features [C] of familiar faces, none of which the network was trained on.

    A face's position is its k coordinates along the principal axes, and its distance from the space that these span.

    Attributes:
        mean: of the features, [C].
        axes: the principal axes, [C, k].
        whitening: from positions to unit variance within a class, [k + 1, k + 1].
        centres: the classes' mean positions, whitened, [2, k + 1].
        limits: by precision, the distance that one of a hundred familiar faces exceeds.
    """

    mean: Array
    axes: Array
    whitening: Array
    centres: Array
    limits: Mapping[str, float]

    def distances(self, features: Array, precision: Precision | str) -> Array:
        """Return how unlike each row of `features` [N, C] is, [N]: above 1 is beyond the limit of `precision`.

        This is the Mahalanobis distance to the nearest class, with a covariance that the classes share (Lee et al.
        2018, "A Simple Unified Framework for Detecting Out-of-Distribution Samples").
        """
        return self.distances_at(self.whitened(features), precision)

    def whitened(self, features: Array) -> Array:
        """Return the whitened positions [N, k + 1] of `features` [N, C]."""
        return np.asarray(positions(features, self.mean, self.axes) @ self.whitening)

    def distances_at(self, whitened: Array, precision: Precision | str) -> Array:
        """Return what `distances` returns for the features at these whitened positions [N, k + 1]."""
        squared = ((whitened[:, None] - self.centres) ** 2).sum(2).min(1)
        return np.sqrt(squared) / np.float32(self.limits[Precision(precision).value])

    @classmethod
    def of(cls, bundle: Bundle) -> "Reference | None":
        """Read a bundle's reference statistics; None if it has none.

        Raises:
            BundleError: the file was changed, or can't be read.
        """
        with reference_arrays(bundle) as file:
            if file is None:
                return None
            arrays = {name: file[name].astype(np.float32) for name in ("mean", "axes", "whitening", "centres")}
            limits = dict(zip(file["precisions"].tolist(), file["limits"].tolist(), strict=True))
            reference = cls(**arrays, limits=limits)
            for precision in bundle.precisions:
                if not np.isfinite(reference.distances(reference.mean[None], precision)).all():
                    raise ValueError("a value is NaN or infinite")
        return reference


def positions(features: Array, mean: Array, axes: Array) -> Array:
    """Return the positions [N, k + 1] of `features` [N, C] around `mean` [C], see `Reference`."""
    centred = features - mean
    along = centred @ axes
    rest = (centred**2).sum(1) - (along**2).sum(1)
    return np.column_stack([along, np.sqrt(np.maximum(rest, 0.0))])
