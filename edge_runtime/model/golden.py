"""Golden pictures: drawn faces in the bundle whose logits are known, so that any device can be told right from wrong.

`golden/golden.json` lists the pictures, their logits by precision and instruction set as export measured them, and how
far from the nearest of these a device may be.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_runtime.errors import BundleError, DeviceError
from edge_runtime.model.bundle import Bundle
from edge_runtime.model.contract import Precision
from edge_runtime.pixels.pictures import read_picture
from edge_runtime.pixels.preprocess import face_pixels

GOLDEN = "golden/golden.json"
FORMAT = 1


class Network(Protocol):
    """Computes logits [N, 2] from pixels uint8 [N, H, W, 3], as `Classifier` does."""

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the logits [N, 2] of `pixels`."""
        ...


@dataclass(frozen=True)
class Golden:
    """What `golden/golden.json` says.

    Attributes:
        pictures: paths inside the bundle.
        isas: what each instruction set of `logits` is called, `native` being the machine that exported.
        logits: [N][2] by precision and instruction set, crops averaged.
        tolerance: largest difference of a logit that is right, by precision and kind of device (`CPU`; `GPU` for all
            that compute in half precision).
    """

    pictures: Sequence[str]
    isas: Mapping[str, str]
    logits: Mapping[str, Mapping[str, Sequence[Sequence[float]]]]
    tolerance: Mapping[str, Mapping[str, float]]

    def to_json(self) -> str:
        """Return the text of `golden/golden.json`."""
        values = {"format": FORMAT, "pictures": list(self.pictures), "isas": dict(self.isas)}
        return json.dumps({**values, "logits": self.logits, "tolerance": self.tolerance}, indent=1) + "\n"

    @classmethod
    def of(cls, bundle: Bundle) -> "Golden":
        """Read a bundle's golden pictures; the files are checked against their SHA-256.

        Raises:
            BundleError: it has none, or they can't be read.
        """
        if GOLDEN not in bundle.manifest.files:
            raise BundleError(f"{bundle.path}: holds no golden pictures; export it again")
        try:
            values = json.loads(bundle.file(GOLDEN).read_text(encoding="utf-8"))
            if values.pop("format") != FORMAT:
                raise ValueError("another format")
            golden = cls(**values)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BundleError(f"{bundle.path}/{GOLDEN}: can't be read ({error}); export it again") from None
        bundle.check(golden.pictures)
        return golden


@dataclass(frozen=True)
class GoldenResult:
    """How a device answered.

    Attributes:
        device, precision: what was asked.
        difference: largest difference of a logit from the nearest known answers.
        tolerance: how large it may be.
        nearest: the instruction set whose answers these are nearest to, in words.
    """

    device: str
    precision: str
    difference: float
    tolerance: float
    nearest: str

    @property
    def right(self) -> bool:
        """Whether the device computes what it should."""
        return self.difference <= self.tolerance

    def __str__(self) -> str:
        verdict = "right" if self.right else "WRONG"
        return (
            f"{self.device} {self.precision}: {verdict}, logits within {self.difference:.2g} of {self.nearest} "
            f"(allowed: {self.tolerance:.2g})"
        )


def check_golden(network: Network, bundle: Bundle, precision: Precision | str, device: str = "CPU") -> GoldenResult:
    """Let `network`, the bundle's `precision` compiled for `device`, judge the golden pictures.

    Raises:
        BundleError: the bundle has no golden pictures for `precision`.
    """
    golden, name = Golden.of(bundle), Precision(precision).value
    try:
        known, tolerance = golden.logits[name], golden.tolerance[name][kind_of(device)]
    except KeyError:
        raise BundleError(f"{bundle.path}: knows no golden answers for {name} on {device}; export it again") from None
    found = np.stack([_logits(network, bundle, picture) for picture in golden.pictures])
    gaps = {isa: float(np.abs(found - np.asarray(answers)).max()) for isa, answers in known.items()}
    nearest = min(gaps, key=lambda isa: gaps[isa] if np.isfinite(gaps[isa]) else np.inf)
    gap = gaps[nearest] if np.isfinite(gaps[nearest]) else float("inf")
    return GoldenResult(device, name, gap, tolerance, golden.isas.get(nearest, nearest))


def require_golden(network: Network, bundle: Bundle, precision: Precision | str, device: str = "CPU") -> GoldenResult:
    """Do `check_golden` and refuse a device that is wrong.

    Raises:
        BundleError: the bundle has no golden pictures for `precision`.
        DeviceError: the device computes something else.
    """
    result = check_golden(network, bundle, precision, device)
    if not result.right:
        raise DeviceError(f"{result}; update its driver, or choose another --device or --precision")
    return result


def kind_of(device: str) -> str:
    """Return the key of the tolerance for an OpenVINO device name: `CPU`, or `GPU` for all others."""
    return "CPU" if device.split(".")[0] == "CPU" else "GPU"


def _logits(network: Network, bundle: Bundle, picture: str) -> NDArray[Any]:
    crops = face_pixels(read_picture(bundle.path / picture), None, bundle.contract)
    mean: NDArray[Any] = network.logits(crops).mean(axis=0)
    return mean
