"""The engine: a bundle's network on a device that gave the right answers, with the reading of its logits."""

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_runtime.bundle import Bundle
from edge_runtime.classifier import Classifier
from edge_runtime.contract import Calibration, Precision
from edge_runtime.errors import UsageError

log = logging.getLogger(__name__)

PREFERRED = {"CPU": ("int8", "fp32", "fp16"), "GPU": ("fp16", "fp32", "int8")}
"""Precisions by device, the one that is fastest there first; the board's GPU has no INT8 units."""


@dataclass(frozen=True)
class Choice:
    """A device and a precision."""

    device: str
    precision: Precision


def choose(bundle: Bundle, device: str, precision: str) -> Choice:
    """Return what to run `bundle` with, where nothing was measured: `AUTO` is the CPU, `auto` the fastest precision.

    Raises:
        UsageError: the bundle does not hold that precision.
    """
    name = "CPU" if device == "AUTO" else device
    held = [p.value for p in bundle.precisions]
    wanted = PREFERRED.get(name.split(".")[0], PREFERRED["CPU"]) if precision == "auto" else (precision,)
    for candidate in wanted:
        if candidate in held:
            return Choice(name, Precision(candidate))
    raise UsageError(f"{bundle.path}: holds no {' or '.join(wanted)} (it holds {', '.join(held) or 'none'})")


class Engine:
    """Computes logits; a device that fails is replaced by the CPU, with the network and reading that belong to it."""

    def __init__(self, bundle: Bundle, choice: Choice, *, hint: str = "THROUGHPUT") -> None:
        self.bundle, self.contract, self.hint = bundle, bundle.contract, hint
        self._start(choice)

    def _start(self, choice: Choice) -> None:
        network = self.bundle.model(choice.precision)
        self._classifier = Classifier(network, self.contract, device=choice.device, hint=self.hint)
        self.choice = choice

    @property
    def parallel(self) -> int:
        """How many faces the device computes at once."""
        return self._classifier.requests

    @property
    def calibration(self) -> Calibration:
        """How the logits of the network in use are read."""
        return self.contract.calibration(self.choice.precision.value)

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the logits [N, 2] of `pixels`, uint8 [N, H, W, 3]; safe to call from several threads."""
        return self._classifier.logits(pixels)
