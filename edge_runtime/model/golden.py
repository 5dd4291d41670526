"""Golden pictures: drawn faces in the bundle with known logits, which show whether a device computes correctly.

`golden/golden.json` lists the pictures, the logits that export measured by precision and instruction set, and how far
from the nearest of these a device's answer may be.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge_runtime.errors import BundleError, DeviceError
from edge_runtime.model.bundle import Bundle
from edge_runtime.model.contract import Precision
from edge_runtime.pixels.pictures import read_picture
from edge_runtime.pixels.preprocess import face_pixels
from edge_runtime.plain_json import plain

GOLDEN = "golden/golden.json"
FORMAT = 1


class Network(Protocol):
    """Computes logits from the model's pixels, as `Classifier` does."""

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the logits [N, 2] of `pixels`, uint8 [N, H, W, 3]."""
        ...


@dataclass(frozen=True)
class Golden:
    """The content of `golden/golden.json`.

    Attributes:
        pictures: paths in the bundle.
        isas: a name for each instruction set in `logits`; `native` is that of the machine that exported.
        logits: [N][2] by precision and instruction set, averaged over the crops.
        tolerance: largest allowed difference of a logit, by precision and kind of device (`CPU`; `GPU` for all that
            compute in half precision).
    """

    pictures: Sequence[str]
    isas: Mapping[str, str]
    logits: Mapping[str, Mapping[str, Sequence[Sequence[float]]]]
    tolerance: Mapping[str, Mapping[str, float]]

    def __post_init__(self) -> None:
        """Check the types; raises ValueError, TypeError or AttributeError if they are wrong."""
        if not self.pictures or not all(isinstance(name, str) for name in (*self.pictures, *self.isas.values())):
            raise ValueError("pictures or instruction sets are missing")
        for answers in self.logits.values():
            for rows in answers.values():
                if np.asarray(rows, np.float64).shape != (len(self.pictures), 2):
                    raise ValueError("the logits don't match the pictures")
        if not all(float(value) >= 0 for values in self.tolerance.values() for value in values.values()):
            raise ValueError("a tolerance is negative")

    def to_json(self) -> str:
        """Return the text of `golden/golden.json`."""
        return json.dumps({"format": FORMAT, **plain(self)}, indent=1) + "\n"

    @classmethod
    def of(cls, bundle: Bundle) -> "Golden":
        """Read a bundle's golden pictures and check their files against their SHA-256.

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
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise BundleError(f"{bundle.path}/{GOLDEN}: can't be read ({error}); export it again") from None
        bundle.check(golden.pictures)
        return golden


@dataclass(frozen=True)
class GoldenResult:
    """A device's answers to the golden pictures.

    Attributes:
        device, precision: what was checked.
        difference: largest difference of a logit from the nearest known answers.
        tolerance: how large it may be.
        nearest: name of the instruction set with the nearest answers.
    """

    device: str
    precision: str
    difference: float
    tolerance: float
    nearest: str

    @property
    def right(self) -> bool:
        """Whether the device computes correctly."""
        return self.difference <= self.tolerance

    def __str__(self) -> str:
        return (
            f"{self.device} {self.precision}: {'right' if self.right else 'WRONG'}, logits within "
            f"{self.difference:.2g} of {self.nearest} (allowed: {self.tolerance:.2g})"
        )


def check_golden(network: Network, bundle: Bundle, precision: Precision | str, device: str = "CPU") -> GoldenResult:
    """Compare the logits of the golden pictures by `network`, compiled for `device`, with the known ones.

    Raises:
        BundleError: the bundle has no golden pictures for `precision`, or one can't be read.
    """
    golden, name = Golden.of(bundle), Precision(precision).value
    known, tolerance = golden.logits.get(name), golden.tolerance.get(name, {}).get(kind_of(device))
    if not known or tolerance is None:
        raise BundleError(f"{bundle.path}: has no golden answers for {name} on {device}; export it again")
    pictures = [read_picture(bundle.path / picture) for picture in golden.pictures]
    found = np.stack([network.logits(face_pixels(one, None, bundle.contract)).mean(axis=0) for one in pictures])
    # NaN, in known or computed logits, counts as infinitely wrong.
    gaps = {isa: float(np.abs(found - np.asarray(answers)).max()) for isa, answers in known.items()}
    gaps = {isa: gap if np.isfinite(gap) else float("inf") for isa, gap in gaps.items()}
    nearest = min(gaps, key=lambda isa: gaps[isa])
    return GoldenResult(
        device=device,
        precision=name,
        difference=gaps[nearest],
        tolerance=tolerance,
        nearest=golden.isas.get(nearest, nearest),
    )


def require_golden(network: Network, bundle: Bundle, precision: Precision | str, device: str = "CPU") -> GoldenResult:
    """Return the result of `check_golden` if the device computes correctly.

    Raises:
        BundleError: the bundle has no golden pictures for `precision`.
        DeviceError: the device gives wrong answers.
    """
    result = check_golden(network, bundle, precision, device)
    if not result.right:
        raise DeviceError(f"{result}; update its driver, or choose another --device or --precision")
    return result


def kind_of(device: str) -> str:
    """Return the key of an OpenVINO device in `Golden.tolerance`: `CPU`, or `GPU` for all others."""
    return "CPU" if device.split(".")[0] == "CPU" else "GPU"
