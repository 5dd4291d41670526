"""The engine: a bundle's network on a device that gave the right answers, with the reading of its logits."""

import logging
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_runtime.errors import DeviceError, MissingDeviceError, UsageError
from edge_runtime.inference.classifier import Classifier
from edge_runtime.model.bundle import Bundle
from edge_runtime.model.contract import Calibration, ModelContract, Precision
from edge_runtime.model.golden import GOLDEN, require_golden

log = logging.getLogger("edge_runtime")

PREFERRED = {"CPU": ("int8", "fp32", "fp16"), "GPU": ("fp16", "fp32", "int8")}
"""Precisions by device, the one that is fastest there first; the board's GPU has no INT8 units."""


class Network(Protocol):
    """What computes logits: a `Classifier`, or a stand-in."""

    requests: int

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the logits [N, 2] of `pixels`, uint8 [N, H, W, 3]; raises DeviceError when the device fails."""


Build = Callable[..., Network]
"""Makes a network from its path and contract, and `device`, `hint` and OpenVINO properties by name."""


@dataclass(frozen=True)
class Choice:
    """What runs: an OpenVINO device, a precision, the performance hint and further OpenVINO properties."""

    device: str
    precision: Precision
    hint: str = "THROUGHPUT"
    properties: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """Logits [N, 2], and what computed them, by which they are read."""

    logits: NDArray[np.float32]
    choice: Choice
    calibration: Calibration


def choose(bundle: Bundle, device: str = "AUTO", precision: str = "auto", hint: str = "THROUGHPUT") -> Choice:
    """Return what to run: what was asked for, else what this board measured, else INT8 on the CPU and FP16 on a GPU.

    Raises:
        UsageError: the bundle does not hold that precision.
    """
    if device == "AUTO":
        from edge_runtime.model.profile import find_profile

        profile, line = find_profile(bundle)
        if profile is not None and precision in ("auto", profile.precision.value):
            log.info(line)
            return Choice(profile.device, profile.precision, profile.hint, profile.properties())
        if profile is None and "ignored" in line:
            log.warning(line)
    name = "CPU" if device == "AUTO" else device
    return Choice(name, _precision(bundle, name, precision), hint)


def _precision(bundle: Bundle, device: str, precision: str) -> Precision:
    held = [p.value for p in bundle.precisions]
    wanted = PREFERRED.get(device.split(".")[0], PREFERRED["CPU"]) if precision == "auto" else (precision,)
    for candidate in wanted:
        if candidate in held:
            return Precision(candidate)
    raise UsageError(f"{bundle.path}: holds no {' or '.join(wanted)} (it holds {', '.join(held) or 'none'})")


class Engine:
    """Computes logits; a GPU that fails is replaced by the CPU, with the network and reading that belong to it.

    Raises:
        DeviceError: the device is missing, or the CPU gives wrong answers.
    """

    def __init__(self, bundle: Bundle, choice: Choice, *, build: Build = Classifier) -> None:
        self.bundle, self._build = bundle, build
        self._lock = threading.Lock()
        try:
            self._network = self._start(choice)
        except DeviceError as error:
            if _is_cpu(choice) or isinstance(error, MissingDeviceError):
                raise
            choice = self._replacement(choice, error)
            self._network = self._start(choice)
        self.choice = choice

    @property
    def contract(self) -> ModelContract:
        """What the model is."""
        return self.bundle.contract

    @property
    def parallel(self) -> int:
        """How many faces the device computes at once."""
        return self._network.requests

    @property
    def calibration(self) -> Calibration:
        """How the logits of the network in use are read."""
        return self.contract.calibration(self.choice.precision.value)

    @property
    def no_answer(self) -> Answer:
        """The answer to no pixels at all."""
        return Answer(np.empty((0, 2), np.float32), self.choice, self.calibration)

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the logits [N, 2] of `pixels`, uint8 [N, H, W, 3]; safe to call from several threads."""
        return self.answer(pixels).logits

    def answer(self, pixels: NDArray[np.uint8]) -> Answer:
        """Return the logits of `pixels` with what computed them; safe to call from several threads.

        Raises:
            DeviceError: the CPU failed.
        """
        with self._lock:
            network, choice = self._network, self.choice
        try:
            logits = network.logits(pixels)
            if not np.isfinite(logits).all():
                raise DeviceError(f"{choice.device} {choice.precision.value} answers what is no number")
        except DeviceError as error:
            if _is_cpu(choice):
                raise
            self._replace(network, choice, error)
            return self.answer(pixels)
        return Answer(logits, choice, self.contract.calibration(choice.precision.value))

    def _start(self, choice: Choice) -> Network:
        path = self.bundle.model(choice.precision)
        properties = {**cache_properties(), **choice.properties}
        network = self._build(path, self.contract, device=choice.device, hint=choice.hint, **properties)
        if GOLDEN in self.bundle.manifest.files:
            log.debug(str(require_golden(network, self.bundle, choice.precision, choice.device)))
        return network

    def _replace(self, failed: Network, choice: Choice, error: DeviceError) -> None:
        """Put the CPU in the place of a network that failed, once however many threads saw it fail."""
        with self._lock:
            if self._network is failed:
                replacement = self._replacement(choice, error)
                self._network, self.choice = self._start(replacement), replacement

    def _replacement(self, choice: Choice, error: DeviceError) -> Choice:
        replacement = Choice("CPU", _precision(self.bundle, "CPU", "auto"))
        log.warning(f"{choice.device} is given up ({error}); {replacement.precision.value} on the CPU goes on")
        return replace(replacement, hint=choice.hint)


def _is_cpu(choice: Choice) -> bool:
    return choice.device.split(".")[0] == "CPU"


def cache_folder() -> Path:
    """Return where compiled models are kept: a service's own cache folder, else the user's XDG cache."""
    service = os.environ.get("CACHE_DIRECTORY")
    if service:
        return Path(service.split(":")[0])
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "deepfake-edge"


def cache_properties() -> dict[str, str]:
    """Return OpenVINO's property for the model cache; empty where nothing can be written there."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return {}
    return {"CACHE_DIR": str(folder)} if os.access(folder, os.W_OK | os.X_OK) else {}
