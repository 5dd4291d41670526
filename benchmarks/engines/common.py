"""What all timed engines share: their interface, and a base for the baselines."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure.cases import Job, TimingLimits
from benchmarks.measure.timing import Timing, in_batches, in_threads
from edge_runtime.model.bundle import Bundle
from edge_runtime.model.contract import ModelContract
from edge_runtime.pixels.pictures import read_picture
from edge_runtime.pixels.preprocess import face_pixels

Pixels = NDArray[np.uint8]
Logits = NDArray[np.float32]


class TimedEngine(Protocol):
    """An engine that can be timed."""

    contract: ModelContract

    def logits(self, pixels: Pixels) -> Logits:
        """Return the logits [N, 2] of crops [N, H, W, 3], inferred one after the other."""

    def verdict(self, path: str) -> object:
        """Judge one picture file."""

    def time_model(self, crops: Sequence[Pixels], limits: TimingLimits) -> Timing:
        """Time inference on crops [1, H, W, 3] in memory."""

    def time_end_to_end(self, paths: Sequence[str], limits: TimingLimits) -> Timing:
        """Time files to verdicts."""

    def facts(self) -> dict[str, Any]:
        """Return versions and settings of what runs, for the report."""


def picture_pixels(path: str | Path, contract: ModelContract) -> Pixels:
    """Read a picture file and return the model's pixels, uint8 [K, H, W, 3]."""
    return face_pixels(read_picture(path), None, contract)


class BaselineEngine:
    """A function from pixels uint8 [N, H, W, 3] to logits [N, 2], timed in batches or in threads."""

    def __init__(
        self,
        job: Job,
        forward: Callable[[Pixels], Logits],
        facts: Mapping[str, Any],
        *,
        batch: int = 1,
        threads: int = 1,
    ) -> None:
        self.contract = Bundle.open(job.bundle).contract
        self._calibration = self.contract.calibration(job.case.precision)
        self._forward, self._facts, self._batch, self._threads = forward, facts, batch, threads

    def logits(self, pixels: Pixels) -> Logits:
        """Return the logits [N, 2] of crops [N, H, W, 3], inferred one after the other."""
        return np.concatenate([self._forward(crop[None]) for crop in pixels])

    def verdict(self, path: str) -> object:
        """Judge one picture file."""
        return self._judge([path])

    def time_model(self, crops: Sequence[Pixels], limits: TimingLimits) -> Timing:
        """Time inference on crops [1, H, W, 3] in memory."""
        return self._time(lambda batch: self._forward(np.concatenate(batch)), crops, limits)

    def time_end_to_end(self, paths: Sequence[str], limits: TimingLimits) -> Timing:
        """Time files to verdicts."""
        return self._time(self._judge, paths, limits)

    def facts(self) -> dict[str, Any]:
        """Return versions and settings of what runs, for the report."""
        return dict(self._facts)

    def _judge(self, paths: Sequence[str]) -> object:
        pixels = np.concatenate([picture_pixels(path, self.contract) for path in paths])
        faces = self._forward(pixels).reshape(len(paths), -1, 2).mean(axis=1)
        return [self._calibration.verdict(self._calibration.score(float(fake - real))) for real, fake in faces]

    def _time(self, step: Callable[[list[Any]], object], inputs: Sequence[Any], limits: TimingLimits) -> Timing:
        if self._threads > 1:
            return in_threads(lambda one: step([one]), inputs, limits, self._threads)
        return in_batches(step, inputs, limits, self._batch)
