"""The schema of `report.json`; docs/benchmarks.md describes it."""

import dataclasses
import json
import math
import statistics
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from benchmarks.measure.cases import ISA_NAMES, MAX_AUC_LOSS, Case, TimingLimits
from benchmarks.measure.circumstances import Circumstances
from edge_runtime.errors import DataError
from edge_runtime.paths import expand
from edge_runtime.plain_json import plain

FORMAT = 1
BUSY = 0.05
"""Share of all cores that other processes may use before the machine counts as busy."""


class GoldenState(str, Enum):
    """How a device's logits of the bundle's golden pictures compare with the known ones."""

    RIGHT = "right"
    WRONG = "wrong"
    NONE = "none"


@dataclass(frozen=True)
class Spread:
    """Median, minimum and maximum over rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread | None":
        """Return the spread of `values`, None if there are none."""
        return cls(statistics.median(values), min(values), max(values)) if values else None


@dataclass(frozen=True)
class Row:
    """A case and all its rounds.

    Attributes:
        rounds: the figures of each round, by the names in `cases.FIGURES`.
        facts: threads, streams and kernels of what ran.
        latencies_ms: percentiles 0 to 100 of the latency from file to verdict, mean over the rounds.
        difference: largest difference of a logit from FP32's on the timed pictures; None without logits.
        changed: on how many of these pictures another logit is the larger one than in FP32's.
        failed: why it could not be measured, or None.
    """

    case: Case
    rounds: tuple[Mapping[str, float], ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    latencies_ms: tuple[float, ...] = ()
    difference: float | None = None
    changed: int | None = None
    failed: str | None = None

    def __post_init__(self) -> None:
        if self.rounds and not self.facts:
            raise DataError(f"{self.case}: has figures but no facts about what ran")

    def values(self, figure: str) -> list[float]:
        """Return `figure` of every round that has it."""
        return [found[figure] for found in self.rounds if figure in found]

    def spread(self, figure: str) -> Spread | None:
        """Return the spread of `figure` over the rounds, None if it was not measured."""
        return Spread.of(self.values(figure))

    def median(self, figure: str) -> float | None:
        """Return the median of `figure` over the rounds, None if it was not measured."""
        spread = self.spread(figure)
        return spread.median if spread else None


@dataclass(frozen=True)
class Accuracy:
    """The accuracy of one network on one device and instruction set.

    Attributes:
        pictures: how many were judged.
        figures: as `train.evaluation.metrics.measure` gives them, each {value, low, high}.
        auc_change: against FP32 on the same pictures, {value, low, high}; None for FP32 itself.
        changed: on how many pictures the decision differs from FP32's.
        difference: largest difference of a logit from FP32's.
        golden: whether the golden pictures' logits are right; NONE if the bundle has no golden pictures.
        golden_difference, golden_tolerance: their largest difference from the known logits, and how large it may be.
        failed: why it could not be measured, or None.
    """

    bundle: str
    precision: str
    device: str
    isa: str
    pictures: int = 0
    figures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    auc_change: Mapping[str, float] | None = None
    changed: int | None = None
    difference: float | None = None
    golden: GoldenState = GoldenState.NONE
    golden_difference: float | None = None
    golden_tolerance: float | None = None
    failed: str | None = None

    def __post_init__(self) -> None:
        for figure in (*self.figures.values(), self.auc_change or {"value": 0.0, "low": 0.0, "high": 0.0}):
            if not {"value", "low", "high"} <= figure.keys():
                raise DataError(f"{self.bundle} {self.precision}: a figure has no value or no interval")

    @property
    def auc(self) -> float | None:
        """The AUC, None if it was not measured."""
        return self.figures["auc"]["value"] if "auc" in self.figures else None

    def reason_to_refuse(self, max_auc_loss: float) -> str | None:
        """Return why this network is not recommended, or None."""
        if self.failed:
            return self.failed
        if self.golden is GoldenState.WRONG:
            return (
                f"the logits of its golden pictures are wrong by {self.golden_difference:.2g} "
                f"(allowed: {self.golden_tolerance:.2g})"
            )
        loss = 0.0 if self.auc_change is None else -self.auc_change["value"]
        return f"it loses {loss:.3f} of AUC; at most {max_auc_loss:g} is allowed" if loss > max_auc_loss else None


@dataclass(frozen=True)
class BundleFacts:
    """A bundle of the report: its name here, the SHA-256 of its model.json, and its networks' sizes by precision."""

    name: str
    architecture: str
    version: str
    demo: bool
    sha256: str
    sizes_mb: Mapping[str, float]


@dataclass(frozen=True)
class Sustained:
    """A continuous run of one case: rows with `second` and figures; `failed` is why it ended early, or None."""

    case: Case
    facts: Mapping[str, Any]
    series: tuple[Mapping[str, float], ...]
    failed: str | None = None


@dataclass(frozen=True)
class LeftOut:
    """What was not measured, and why."""

    what: str
    why: str


@dataclass(frozen=True)
class DataFacts:
    """The faces of a report: how many are judged, `shown` of them timed, and on how many each bundle was trained."""

    faces: int
    shown: int
    fingerprint: str
    trained: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings(TimingLimits):
    """How a report was measured: rounds, the limits of each timing, and the AUC that may be lost against FP32."""

    rounds: int = 0
    max_auc_loss: float = MAX_AUC_LOSS


@dataclass(frozen=True)
class Report:
    """A whole run: `answer` is its first lines, `repeated` how many rounds were measured again at a better pace."""

    circumstances: Circumstances
    bundles: tuple[BundleFacts, ...]
    data: DataFacts
    settings: Settings
    rows: tuple[Row, ...] = ()
    accuracies: tuple[Accuracy, ...] = ()
    sustained: tuple[Sustained, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    answer: tuple[str, ...] = ()
    complete: bool = True
    repeated: int = 0

    @property
    def foreign_load(self) -> Spread | None:
        """The share of all cores that other processes used during the run."""
        return Spread.of([value for row in self.rows for value in row.values("foreign_load")])

    @property
    def busy(self) -> bool:
        """Whether other processes used so much of the machine that the figures are doubtful."""
        load = self.foreign_load
        return load is not None and load.median > BUSY

    def place(self, isa: str) -> str:
        """Return the name of an instruction set's figures; capped ones are the workstation's, never the board's."""
        if self.circumstances.emulator:
            return f"under {self.circumstances.emulator.split()[0]}, times mean nothing"
        return ISA_NAMES[isa]

    @property
    def failures(self) -> list[str]:
        """What could not be measured, one line each."""
        speeds = [f"{row.case}: {row.failed}" for row in self.rows if row.failed]
        networks = [
            f"accuracy of {a.bundle} {a.precision} on {a.device} ({a.isa}): {a.failed}"
            for a in self.accuracies
            if a.failed
        ]
        runs = [f"{run.case}, sustained: {run.failed}" for run in self.sustained if run.failed]
        return speeds + networks + runs

    def find(self, **wanted: Any) -> list[Row]:
        """Return the measured rows whose cases have these attributes."""
        return [row for row in self.rows if row.rounds and row.case.has(**wanted)]

    def accuracy(self, case: Case) -> Accuracy | None:
        """Return the measured accuracy of a case's network, if there is one."""
        key = (case.bundle, case.precision, case.device, case.isa)
        found = (a for a in self.accuracies if (a.bundle, a.precision, a.device, a.isa) == key and a.failed is None)
        return next(found, None)

    def to_json(self) -> str:
        """Return the text of report.json."""
        return json.dumps({"format": FORMAT, **plain(self)}, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Report":
        """Read the text of a report.json.

        Raises:
            DataError: it is not a report of this format.
        """
        try:
            values = json.loads(text)
            if values.pop("format") != FORMAT:
                raise DataError(f"the report is not of format {FORMAT}; make it again with edge-benchmark")
            report: Report = _read(cls, values)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise DataError(f"not a report of edge-benchmark ({type(error).__name__}: {error})") from None
        return report

    @classmethod
    def read(cls, path: Path | str) -> "Report":
        """Read a report.json, or the one in a folder.

        Raises:
            DataError: it can't be read.
        """
        file = expand(path)
        file = file / "report.json" if file.is_dir() else file
        try:
            if not file.is_file():
                raise OSError("not a file")
            return cls.from_json(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise DataError(f"{file}: can't be read ({reason}); give a report.json of edge-benchmark") from None
        except DataError as error:
            raise DataError(f"{file}: {error}") from None


def _read(kind: Any, value: Any) -> Any:
    """Return a JSON value as type `kind`: a dataclass, tuple, mapping, enum, number or text, or None if optional.

    Raises:
        ValueError, TypeError, KeyError: it is something else.
    """
    arguments = typing.get_args(kind)
    origin = typing.get_origin(kind) or kind
    if origin is Any:
        return value
    if type(None) in arguments:
        return None if value is None else _read(arguments[0], value)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind) and isinstance(value, dict):
        hints = typing.get_type_hints(kind)
        return kind(**{name: _read(hints[name], item) for name, item in value.items()})
    if origin is tuple and isinstance(value, list):
        return tuple(_read(arguments[0], item) for item in value)
    if origin is Mapping and isinstance(value, dict):
        return {name: _read(arguments[1], item) for name, item in value.items()}
    if origin is GoldenState and isinstance(value, str):
        # Older reports have more words after the state.
        return GoldenState(value.partition(" ")[0])
    if isinstance(origin, type) and issubclass(origin, Enum):
        return origin(value)
    if origin is float and value is None:
        return math.nan
    if origin is float and type(value) is int:
        return float(value)
    if type(value) is origin:
        return value
    raise ValueError(f"{str(value)[:40]!r} is not of type {getattr(origin, '__name__', origin)}")
