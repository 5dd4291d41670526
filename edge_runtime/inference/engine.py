"""The engine: a bundle's network on a device that passed the golden check, and how to read its logits."""

import logging
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_runtime.errors import DeviceError, MissingDeviceError, UsageError
from edge_runtime.inference.classifier import Classifier
from edge_runtime.model.bundle import Bundle
from edge_runtime.model.contract import Calibration, ModelContract, Precision
from edge_runtime.model.golden import GOLDEN, require_golden
from edge_runtime.model.reference import Reference
from edge_runtime.paths import cache_folder

if TYPE_CHECKING:
    from edge_runtime.model.profile import Profile

log = logging.getLogger("edge_runtime")

PREFERRED = {"CPU": ("int8", "fp32", "fp16"), "GPU": ("fp16", "fp32", "int8")}
"""Precisions by kind of device, fastest first; the board's GPU has no INT8 units."""


class Network(Protocol):
    """What computes logits: a `Classifier`, or a stand-in in tests.

    Attributes:
        requests: how many inputs it computes at once.
    """

    requests: int

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the logits [N, 2] of `pixels`, uint8 [N, H, W, 3]; raises DeviceError if the device fails."""

    def rows(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return logits and features [N, 2 + C]; called only if the bundle has reference statistics."""


Build = Callable[..., Network]
"""Makes a network from its path and contract, with `device`, `hint` and OpenVINO properties by name."""


@dataclass(frozen=True)
class Choice:
    """What runs: an OpenVINO device, a precision, the performance hint and further OpenVINO properties."""

    device: str
    precision: Precision
    hint: str = "THROUGHPUT"
    properties: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, profile: "Profile") -> "Choice":
        """Return the choice that `profile` keeps."""
        return cls(profile.device, profile.precision, profile.hint, profile.properties())

    @property
    def on_cpu(self) -> bool:
        """Whether the device is the CPU."""
        return self.device.split(".")[0] == "CPU"


@dataclass(frozen=True)
class Answer:
    """Logits [N, 2], what computed them, and the temperature and thresholds that belong to it.

    `distances` [N] says how unlike the faces are that the network learned: above 1 is beyond the limit. `positions`
    [N, k + 1] are the whitened ones of their features. Both are empty if the bundle has no reference statistics.
    """

    logits: NDArray[np.float32]
    choice: Choice
    calibration: Calibration
    distances: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    positions: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), np.float32))

    def part(self, start: int, end: int) -> "Answer":
        """Return the answer to the crops from `start` to `end`."""
        own = slice(start, end)
        return replace(self, logits=self.logits[own], distances=self.distances[own], positions=self.positions[own])


def choose(bundle: Bundle, device: str = "AUTO", precision: str = "auto", hint: str = "THROUGHPUT") -> Choice:
    """Return what to run: as asked, else as this board's profile says, else INT8 on the CPU and FP16 on a GPU.

    Raises:
        UsageError: the bundle lacks the precision.
    """
    if device == "AUTO":
        from edge_runtime.model.profile import ProfileState, find_profile

        found = find_profile(bundle)
        if found.profile is not None and precision in ("auto", found.profile.precision.value):
            log.info(found.line)
            return Choice.of(found.profile)
        if found.state is ProfileState.UNUSABLE:
            log.warning(found.line)
    name = "CPU" if device == "AUTO" else device
    return Choice(name, _precision(bundle, name, precision), hint)


def _precision(bundle: Bundle, device: str, precision: str) -> Precision:
    held = [p.value for p in bundle.precisions]
    wanted = PREFERRED.get(device.split(".")[0], PREFERRED["CPU"]) if precision == "auto" else (precision,)
    for candidate in wanted:
        if candidate in held:
            return Precision(candidate)
    raise UsageError(
        f"{bundle.path}: holds no {' or '.join(wanted)} (it holds {', '.join(held) or 'none'}); choose one of these"
    )


class Engine:
    """Computes logits. A GPU that fails is replaced by the CPU, with the network and calibration for the CPU.

    Args:
        bundle: the networks.
        choice: which one runs where.
        build: makes the network; tests give stand-ins.

    Raises:
        DeviceError: the device is missing, or the CPU gives wrong answers.
    """

    def __init__(self, bundle: Bundle, choice: Choice, *, build: Build = Classifier) -> None:
        self.bundle, self._build = bundle, build
        self._lock, self._reference = threading.Lock(), Reference.of(bundle)
        try:
            self._network, self.choice = self._start(choice), choice
        except DeviceError as error:
            if choice.on_cpu or isinstance(error, MissingDeviceError):
                raise
            self.choice = self._replacement(choice, error)
            self._network = self._start(self.choice)

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
        """Temperature and thresholds of the network in use."""
        return self.contract.calibration(self.choice.precision.value)

    @property
    def no_answer(self) -> Answer:
        """The answer to no pixels at all."""
        return Answer(np.empty((0, 2), np.float32), self.choice, self.calibration)

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the logits [N, 2] of `pixels`, uint8 [N, H, W, 3]; safe to call from several threads."""
        return self.answer(pixels).logits

    def answer(self, pixels: NDArray[np.uint8]) -> Answer:
        """Return the logits of `pixels` and what computed them; safe to call from several threads.

        Raises:
            DeviceError: the CPU failed.
        """
        with self._lock:
            network, choice = self._network, self.choice
        try:
            rows = network.logits(pixels) if self._reference is None else network.rows(pixels)
            if not np.isfinite(rows).all():
                raise DeviceError(f"{choice.device} {choice.precision.value} answers NaN or infinity")
        except DeviceError as error:
            if choice.on_cpu:
                raise
            with self._lock:
                # Only the first of several threads that see the failure replaces the network.
                if self._network is network:
                    replacement = self._replacement(choice, error)
                    self._network, self.choice = self._start(replacement), replacement
            return self.answer(pixels)
        return self.read(rows, choice)

    def read(self, rows: NDArray[np.float32], choice: Choice) -> Answer:
        """Return the answer that `choice` gave as `rows`: logits and features [N, 2 + C]."""
        answer = Answer(rows[:, :2], choice, self.contract.calibration(choice.precision.value))
        if self._reference is None:
            return answer
        positions = self._reference.whitened(rows[:, 2:])
        distances = self._reference.distances_at(positions, choice.precision)
        return replace(answer, distances=distances, positions=positions)

    def switch(self, choice: Choice) -> None:
        """Switch to `choice`, from the next answer on.

        Raises:
            DeviceError: it can't be started; the engine continues unchanged.
        """
        network = self._start(choice)
        with self._lock:
            self._network, self.choice = network, choice

    def _start(self, choice: Choice) -> Network:
        path = self.bundle.model(choice.precision)
        properties = {**cache_properties(), **choice.properties}
        network = self._build(path, self.contract, device=choice.device, hint=choice.hint, **properties)
        if GOLDEN in self.bundle.manifest.files:
            log.debug(str(require_golden(network, self.bundle, choice.precision, choice.device)))
        return network

    def _replacement(self, choice: Choice, error: DeviceError) -> Choice:
        replacement = Choice("CPU", _precision(self.bundle, "CPU", "auto"), choice.hint)
        log.warning(f"{choice.device} failed ({error}); continuing with {replacement.precision.value} on the CPU")
        return replacement


def cache_properties() -> dict[str, str]:
    """Return OpenVINO's property for the cache of compiled models; empty if the folder can't be written."""
    try:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return {}
    return {"CACHE_DIR": str(folder)} if os.access(folder, os.W_OK | os.X_OK) else {}


def free_threads(count: int) -> dict[str, Any]:
    """Return OpenVINO's properties for a network that computes in `count` threads on whichever cores are free.

    By default OpenVINO binds threads to cores, and every process starts with the same ones.
    """
    return {"INFERENCE_NUM_THREADS": count, "ENABLE_CPU_PINNING": False}
