"""The contract between the stages: what a model is, what it expects and how its answers are read.

It is written into the checkpoint, into the IR's `rt_info` and into the bundle's `model.json`, so that nobody types
labels, sizes, means or thresholds a second time.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from edge_runtime.errors import ContractError

FORMAT = 1
"""The contract's format; a bundle of another format is refused."""

LABELS = ("real", "fake")
"""In index order: index 1, fake, is the positive class everywhere."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_SCALE = (0.229, 0.224, 0.225)
"""Per channel RGB, of pixels in [0, 1] (torchvision's weights are trained with these)."""

CHECKPOINT = "checkpoint"
"""The key of a checkpoint's own calibration, beside those of the precisions."""

DEMO_NOTICE = "demonstration model, no verdict on photographs"


class Precision(str, Enum):
    """The precisions of a bundle, by the name of their folder."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


class Framing(str, Enum):
    """What a model takes for the face: the whole picture, or what the face stage cuts out."""

    WHOLE = "whole"
    DETECTED = "detected"


class Fit(str, Enum):
    """How a box that is no square becomes one: its centre square, or stretched as the first article did."""

    SQUARE = "square"
    STRETCH = "stretch"


class Verdict(str, Enum):
    """What is said of a face."""

    REAL = "real"
    FAKE = "fake"
    UNCERTAIN = "uncertain"


@dataclass(frozen=True)
class PixelRecipe:
    """How a face becomes the model's pixels.

    The face's square is resized to `resize_to` pixels a side with Pillow's `filter` (`None`: it stays at its native
    resolution), then `crops` squares of the model's input size are cut out of it: 1 is the centre, 5 are the centre and
    the four corners, whose logits are averaged. `resize_to` equal to the input size is a plain resize.
    """

    resize_to: int | None = 224
    crops: int = 1
    filter: str = "bilinear"
    fit: Fit = Fit.SQUARE

    def __post_init__(self) -> None:
        if self.crops not in (1, 5):
            raise ContractError(f"the contract asks for {self.crops} crops a face; 1 and 5 are known")
        if self.filter not in ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"):
            raise ContractError(f"the contract names the filter {self.filter!r}, which Pillow does not have")
        if self.resize_to is not None and not 1 <= self.resize_to <= 4096:
            raise ContractError(f"the contract resizes to {self.resize_to} pixels; 1 to 4096 are possible")


@dataclass(frozen=True)
class Calibration:
    """How the logits of one precision are read.

    `temperature` divides the logits (Guo et al. 2017, "On Calibration of Modern Neural Networks"). A score of at most
    `low` is real, of at least `high` fake, between them uncertain. `balanced` is the one threshold that weighs both
    errors alike, for comparisons that ignore the uncertain band. All scores are in [0, 1]. `fitted` is false where no
    labelled pictures were at hand. `max_fpr` and `max_fnr` are what `high` and `low` were fitted to: of real faces at
    most this share is called fake, of fakes at most that share real; who fits anew keeps them.
    """

    temperature: float = 1.0
    low: float = 0.5
    high: float = 0.5
    balanced: float = 0.5
    fitted: bool = False
    max_fpr: float = 0.01
    max_fnr: float = 0.01

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ContractError(f"the contract's temperature is {self.temperature}; it must be above 0")
        if not 0.0 <= self.low <= self.high <= 1.0:
            raise ContractError(
                f"the contract's thresholds are {self.low} and {self.high}; 0 ≤ low ≤ high ≤ 1 is meant"
            )
        if not 0.0 <= self.balanced <= 1.0:
            raise ContractError(f"the contract's balanced threshold is {self.balanced}; 0 to 1 is meant")
        if not (0.0 <= self.max_fpr <= 1.0 and 0.0 <= self.max_fnr <= 1.0):
            raise ContractError(f"the contract allows errors of {self.max_fpr} and {self.max_fnr}; 0 to 1 is meant")

    def score(self, logit: float) -> float:
        """Return the probability of fake, in [0, 1], for `logit` = logit of fake − logit of real."""
        scaled = max(-700.0, min(700.0, logit / self.temperature))
        return 1.0 / (1.0 + math.exp(-scaled))

    def verdict(self, score: float) -> Verdict:
        """Return what a score says: real, fake, or uncertain between the two thresholds."""
        if score >= self.high:
            return Verdict.FAKE
        return Verdict.REAL if score <= self.low else Verdict.UNCERTAIN


@dataclass(frozen=True)
class ModelContract:
    """What a model is, what it expects and how its answers are read.

    Attributes:
        architecture: the backbone's name in the registry.
        version: the model's own version, as its maker counts.
        labels: in index order; index 1 is the positive class.
        input_size: pixels a side of the model's input.
        mean, scale: per channel RGB, of pixels in [0, 1].
        framing, margin: what is taken for the face; the margin is a share of the face box's longer side that is added
            to it, for `detected` framing.
        pixels: how a face becomes the model's pixels.
        calibrations: by precision (and `checkpoint`), how logits are read.
        metrics: by precision, measured figures.
        data: a fingerprint of the training data (SHA-256 of the catalog), empty where unknown.
        demo: true for a model of the made sample faces.
    """

    architecture: str
    version: str = "0.0.0"
    labels: tuple[str, ...] = LABELS
    input_size: int = 224
    mean: tuple[float, float, float] = IMAGENET_MEAN
    scale: tuple[float, float, float] = IMAGENET_SCALE
    framing: Framing = Framing.WHOLE
    margin: float = 0.3
    pixels: PixelRecipe = field(default_factory=PixelRecipe)
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    data: str = ""
    demo: bool = False

    def __post_init__(self) -> None:
        if tuple(self.labels) != LABELS:
            raise ContractError(
                f"the contract's labels are {', '.join(map(str, self.labels))}; real, fake is the order"
            )
        if not isinstance(self.input_size, int) or not 8 <= self.input_size <= 2048:
            raise ContractError(f"the contract's input size is {self.input_size} pixels; 8 to 2048 are possible")
        known = all(map(math.isfinite, (*self.mean, *self.scale)))
        if not known or len(self.mean) != 3 or len(self.scale) != 3 or min(self.scale) <= 0:
            raise ContractError("the contract's mean and scale must be three numbers each, the scale above 0")
        if not 0.0 <= self.margin <= 2.0:
            raise ContractError(f"the contract's margin is {self.margin}; 0 to 2 is possible")

    def calibration(self, precision: str) -> Calibration:
        """Return how logits of `precision` are read; the uncalibrated reading (0.5) where none was fitted."""
        return self.calibrations.get(precision, Calibration())

    def replace(self, **changes: Any) -> "ModelContract":
        """Return a contract with `changes`."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return the contract as plain values that JSON can hold, with its format."""
        return {"format": FORMAT, **_plain(dataclasses.asdict(self))}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ModelContract":
        """Read what `to_dict` wrote.

        Raises:
            ContractError: it is of another format, a field is unknown or missing, or a value is impossible.
        """
        if not isinstance(values, Mapping):
            raise ContractError(f"the contract is a {type(values).__name__}, not a mapping")
        fields = dict(values)
        found = fields.pop("format", None)
        if found != FORMAT:
            raise ContractError(
                f"the contract has format {found!r}, this program reads {FORMAT}; export the model again"
            )
        try:
            fields["pixels"] = PixelRecipe(**{**fields["pixels"], "fit": Fit(fields["pixels"]["fit"])})
            fields["framing"] = Framing(fields["framing"])
            fields["calibrations"] = {key: Calibration(**value) for key, value in fields["calibrations"].items()}
            for name in ("labels", "mean", "scale"):
                fields[name] = tuple(fields[name])
            return cls(**fields)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ContractError(f"the contract can't be read ({error}); export the model again") from error

    def to_rt_info(self) -> dict[str, str]:
        """Return the keys of the IR's `model_info`, under the names that OpenVINO's Model API and DL Streamer read.

        Mean and scale are of pixels in [0, 255] there. Booleans are the strings "True" and "False", since DL Streamer
        does not read OpenVINO's own YES and NO.
        """
        return {
            "model_type": "Classification",
            "labels": " ".join(self.labels),
            "mean_values": _numbers(255.0 * value for value in self.mean),
            "scale_values": _numbers(255.0 * value for value in self.scale),
            "reverse_input_channels": "True",
            "resize_type": "standard",
            "orig_height": str(self.input_size),
            "orig_width": str(self.input_size),
            "multilabel": "False",
            "output_raw_scores": "True",
            "confidence_threshold": "0.0",
            "deepfake_edge_contract": json.dumps(self.to_dict(), sort_keys=True),
        }


def _numbers(values: Any) -> str:
    return " ".join(f"{value:.6g}" for value in values)


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
