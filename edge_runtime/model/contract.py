"""The contract between the stages: what a model is, what input it expects and how to read its output.

It is stored in the checkpoint, in the IR's `rt_info` and in the bundle's `model.json`, so that labels, sizes, means and
thresholds are never typed twice.
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from edge_runtime.errors import ContractError
from edge_runtime.plain_json import plain

FORMAT = 1
"""Version of the contract's format; others are refused."""

LABELS = ("real", "fake")
"""In index order. Index 1, fake, is the positive class everywhere."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_SCALE = (0.229, 0.224, 0.225)
"""Per RGB channel, for pixels in [0, 1]; torchvision's weights are trained with these."""

CHECKPOINT = "checkpoint"
"""Key of the checkpoint's own calibration, in addition to those of the precisions."""

DEMO_NOTICE = "demonstration model, no verdict on photographs"

FILTERS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
"""Pillow's resampling filters."""


class Precision(str, Enum):
    """The precisions a bundle may hold, by the names of their folders."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


class Framing(str, Enum):
    """What a model is shown: the whole picture, or the face that the face detector found."""

    WHOLE = "whole"
    DETECTED = "detected"


class Fit(str, Enum):
    """How a region that isn't square becomes square: by its centre square, or stretched as in the first article."""

    SQUARE = "square"
    STRETCH = "stretch"


class Verdict(str, Enum):
    """The verdict on a face."""

    REAL = "real"
    FAKE = "fake"
    UNCERTAIN = "uncertain"


@dataclass(frozen=True)
class PixelRecipe:
    """How a face becomes the model's pixels.

    The face's square is resized to `resize_to` pixels a side with Pillow's `filter` (None keeps the native resolution).
    Then `crops` squares of the model's input size are cut out: 1 is the centre; 5 are the centre and the four corners,
    whose logits are averaged. A plain resize has `resize_to` equal to the input size.
    """

    resize_to: int | None = 224
    crops: int = 1
    filter: str = "bilinear"
    fit: Fit = Fit.SQUARE

    def __post_init__(self) -> None:
        if self.crops not in (1, 5):
            raise ContractError(f"the contract asks for {self.crops} crops per face; 1 and 5 are possible")
        if self.filter not in FILTERS:
            raise ContractError(f"the contract names the filter {self.filter!r}; choose one of {', '.join(FILTERS)}")
        if self.resize_to is not None and not (isinstance(self.resize_to, int) and 1 <= self.resize_to <= 4096):
            raise ContractError(
                f"the contract resizes to {self.resize_to} pixels; whole numbers up to 4096 are possible"
            )


@dataclass(frozen=True)
class QualityGroup:
    """Faces of similar quality, whose scores mean the same as those of other groups once they are rescaled.

    Attributes:
        sharpness, blockiness, size: a face belongs here if its three (see edge_runtime.pixels.quality) are below these;
            None is no limit.
        scale, shift: the face's log-odds are multiplied by `scale`, then `shift` is added.
    """

    sharpness: float | None
    blockiness: float | None
    size: float | None
    scale: float
    shift: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and math.isfinite(self.shift) and self.scale > 0):
            raise ContractError(f"the contract rescales log-odds by {self.scale} and {self.shift}; both must be finite")

    def holds(self, quality: Sequence[float]) -> bool:
        """Return whether a face of this sharpness, blockiness and size belongs here."""
        limits = (self.sharpness, self.blockiness, self.size)
        return all(limit is None or value < limit for value, limit in zip(quality, limits, strict=True))


@dataclass(frozen=True)
class Calibration:
    """How to read the logits of one precision.

    Attributes:
        temperature: divides the logit (fake − real); `bias` is then added, so that a face as likely fake as real
            scores 0.5 (Platt 1999).
        low: a score of at most this is real.
        high: a score of at least this is fake; between the two the verdict is uncertain.
        balanced: the single threshold that weighs both errors alike, for comparisons that ignore the uncertain band.
        fitted: false if there were no labelled pictures to fit to.
        max_fpr: `high` was fitted so that at most this share of real faces is called fake.
        max_fnr: `low` was fitted so that at most this share of fake faces is called real. Refitting keeps both.
        reals, fakes: how many faces of each class it was fitted to, those of one person, video or near-duplicate
            picture counted as one; 0 if unknown. Earlier versions counted each face.
        fpr_bound, fnr_bound: what so many faces prove, with 95 % confidence, about faces like them: no larger share of
            reals is called fake, and of fakes real. A person with one error counts as an error.
        groups: by quality; the first that a face belongs to counts, and none leaves its score as it is.
        video_low, video_high: `low` and `high` for the score of a whole video; None: those of a face.
    """

    temperature: float = 1.0
    low: float = 0.5
    high: float = 0.5
    balanced: float = 0.5
    fitted: bool = False
    max_fpr: float = 0.01
    max_fnr: float = 0.01
    bias: float = 0.0
    reals: int = 0
    fakes: int = 0
    fpr_bound: float = 1.0
    fnr_bound: float = 1.0
    groups: tuple[QualityGroup, ...] = ()
    video_low: float | None = None
    video_high: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ContractError(f"the contract's temperature is {self.temperature}; it must be above 0")
        if not math.isfinite(self.bias):
            raise ContractError(f"the contract's bias is {self.bias}; it must be a finite number")
        for low, high in ((self.low, self.high), (self.video_low, self.video_high)):
            both = low is not None and high is not None and 0.0 <= low <= high <= 1.0
            if not both and (low, high) != (None, None):
                raise ContractError(
                    f"the contract's thresholds are {low} and {high}; they must satisfy 0 ≤ low ≤ high ≤ 1"
                )
        if not 0.0 <= self.balanced <= 1.0:
            raise ContractError(f"the contract's balanced threshold is {self.balanced}; it must be in [0, 1]")
        if not (0.0 <= self.max_fpr <= 1.0 and 0.0 <= self.max_fnr <= 1.0):
            raise ContractError(
                f"the contract allows error rates of {self.max_fpr} and {self.max_fnr}; they must be in [0, 1]"
            )

    def score(self, logit: float) -> float:
        """Return the probability of fake, in [0, 1]; `logit` is the logit of fake minus that of real."""
        scaled = max(-700.0, min(700.0, logit / self.temperature + self.bias))
        return 1.0 / (1.0 + math.exp(-scaled))

    def adjusted(self, logit: float, quality: Sequence[float]) -> float:
        """Return the logit (fake − real) of a face of this sharpness, blockiness and size, rescaled by its group."""
        for group in self.groups:
            if group.holds(quality):
                odds = group.scale * (logit / self.temperature + self.bias) + group.shift
                return self.temperature * (odds - self.bias)
        return logit

    def for_videos(self) -> "Calibration":
        """Return how to read the score of a whole video."""
        if self.video_low is None or self.video_high is None:
            return self
        return dataclasses.replace(self, low=self.video_low, high=self.video_high)

    def verdict(self, score: float) -> Verdict:
        """Return the verdict for a score."""
        if score >= self.high:
            return Verdict.FAKE
        return Verdict.REAL if score <= self.low else Verdict.UNCERTAIN


@dataclass(frozen=True)
class ModelContract:
    """What a model is, what input it expects and how to read its output.

    Attributes:
        architecture: the backbone's name in the registry.
        version: the model's own version.
        labels: in index order; index 1 is the positive class.
        input_size: pixels a side of the model's input.
        mean, scale: per RGB channel, for pixels in [0, 1].
        framing: what the model is shown.
        margin: share of the longer side of a face's box that is added to it, for `detected` framing.
        pixels: how a face becomes the model's pixels.
        calibrations: how to read the logits, by precision (and `checkpoint`).
        metrics: measured figures, by precision.
        data: SHA-256 of the training catalog; empty if unknown.
        demo: whether it was trained on the generated sample faces.
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
        for name in ("architecture", "version", "data"):
            text = getattr(self, name)
            # These are printed on terminals: no control characters.
            if not isinstance(text, str) or not text.isprintable():
                raise ContractError(f"the contract's {name} is {text!r}; it must be printable text")
        if tuple(self.labels) != LABELS:
            raise ContractError(
                f"the contract's labels are {', '.join(map(str, self.labels))}; they must be {', '.join(LABELS)}"
            )
        if not isinstance(self.input_size, int) or not 8 <= self.input_size <= 2048:
            raise ContractError(f"the contract's input size is {self.input_size} pixels; 8 to 2048 are possible")
        finite = all(map(math.isfinite, (*self.mean, *self.scale)))
        if not finite or len(self.mean) != 3 or len(self.scale) != 3 or min(self.scale) <= 0:
            raise ContractError("the contract's mean and scale must be three numbers each, the scale above 0")
        if not 0.0 <= self.margin <= 2.0:
            raise ContractError(f"the contract's margin is {self.margin}; 0 to 2 is possible")

    def calibration(self, precision: str) -> Calibration:
        """Return how to read the logits of `precision`; thresholds of 0.5 if none were fitted."""
        return self.calibrations.get(precision, Calibration())

    def replace(self, **changes: Any) -> "ModelContract":
        """Return a copy with `changes`."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return the contract and its format as plain values for JSON."""
        values = plain(self)
        for calibration in values["calibrations"].values():
            if calibration["video_low"] is None:
                # Left out, so that earlier versions can read the contract.
                del calibration["video_low"], calibration["video_high"]
        return {"format": FORMAT, **values}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ModelContract":
        """Read what `to_dict` wrote.

        Raises:
            ContractError: another format, an unknown or missing field, or an impossible value.
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
            fields["calibrations"] = {key: _calibration(value) for key, value in fields["calibrations"].items()}
            for name in ("labels", "mean", "scale"):
                fields[name] = tuple(fields[name])
            return cls(**fields)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ContractError(f"the contract can't be read ({error}); export the model again") from error

    def to_rt_info(self) -> dict[str, str]:
        """Return the IR's `model_info`, under the names that OpenVINO's Model API and DL Streamer read.

        There, mean and scale are for pixels in [0, 255]. Booleans are "True" and "False", since DL Streamer doesn't
        read OpenVINO's YES and NO.
        """
        mean, scale = (" ".join(f"{255.0 * value:.6g}" for value in values) for values in (self.mean, self.scale))
        return {
            "model_type": "Classification",
            "labels": " ".join(self.labels),
            "mean_values": mean,
            "scale_values": scale,
            "reverse_input_channels": "True",
            "resize_type": "standard",
            "orig_height": str(self.input_size),
            "orig_width": str(self.input_size),
            "multilabel": "False",
            "output_raw_scores": "True",
            "confidence_threshold": "0.0",
            "deepfake_edge_contract": json.dumps(self.to_dict(), sort_keys=True),
        }


def _calibration(fields: Mapping[str, Any]) -> Calibration:
    groups = tuple(QualityGroup(**group) for group in fields.get("groups", ()))
    return Calibration(**{**fields, "groups": groups})
