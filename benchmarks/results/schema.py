"""What a benchmark run found, as it lies in `report.json`; docs/benchmarks.md describes the schema."""

import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measure.cases import ISA_NAMES, MAX_AUC_LOSS, Case, Engine, Mode
from benchmarks.measure.circumstances import Circumstances
from edge_runtime.errors import DataError

FORMAT = 1
BUSY = 0.05
"""Share of all cores that others may use before a run counts as made on a busy machine."""


@dataclass(frozen=True)
class Spread:
    """The median of some rounds, with the smallest and the largest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread | None":
        """Return the spread of `values`; None of none."""
        return cls(statistics.median(values), min(values), max(values)) if values else None


@dataclass(frozen=True)
class Row:
    """A case and all its rounds.

    Attributes:
        case: what was measured.
        rounds: the figures of each round, by the names of `cases.FIGURES`.
        facts: what ran: threads, streams, kernels.
        latencies_ms: the percentiles 0 to 100 of end-to-end latency, over all rounds; empty where there are none.
        difference: the largest difference of a logit from FP32's on the same pictures; None without outputs.
        changed: of how many of these pictures the decision differs from FP32's.
        failed: why it could not be measured, else None.
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
            raise DataError(f"{self.case}: figures without what they ran with are not reported")

    def values(self, figure: str) -> list[float]:
        """Return `figure` of every round that has it."""
        return [found[figure] for found in self.rounds if figure in found]

    def spread(self, figure: str) -> Spread | None:
        """Return median and spread of `figure` over the rounds, None where it was not measured."""
        return Spread.of(self.values(figure))

    def median(self, figure: str) -> float | None:
        """Return the median of `figure` over the rounds, None where it was not measured."""
        spread = self.spread(figure)
        return spread.median if spread else None


@dataclass(frozen=True)
class Accuracy:
    """How right one network is, on one device and instruction set.

    Attributes:
        bundle, precision, device, isa: which one.
        pictures: how many were judged.
        figures: as `train.evaluation.metrics.measure` gives them, each {value, low, high}.
        auc_change: against FP32 on the same pictures, {value, low, high}; None for FP32 itself.
        changed: of how many pictures the decision differs from FP32's.
        difference: the largest difference of a logit from FP32's.
        golden: `right`, `wrong: …`, or why they were not computed.
        failed: why it could not be measured, else None.
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
    golden: str = "none in the bundle"
    failed: str | None = None

    @property
    def auc(self) -> float | None:
        """Return the AUC, None where it was not measured."""
        return self.figures["auc"]["value"] if "auc" in self.figures else None


@dataclass(frozen=True)
class BundleFacts:
    """A bundle of the report: what it is called here and is, the SHA-256 of its model.json, and sizes by precision."""

    name: str
    architecture: str
    version: str
    demo: bool
    sha256: str
    sizes_mb: Mapping[str, float]


@dataclass(frozen=True)
class Sustained:
    """A long run of one case: rows over time, each with `second` and figures; `failed` where it ended early."""

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
class Report:
    """A whole run."""

    circumstances: Circumstances
    bundles: tuple[BundleFacts, ...]
    data: Mapping[str, Any]
    settings: Mapping[str, Any]
    rows: tuple[Row, ...] = ()
    accuracies: tuple[Accuracy, ...] = ()
    sustained: tuple[Sustained, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    answer: tuple[str, ...] = ()
    complete: bool = True

    @property
    def max_auc_loss(self) -> float:
        """How much AUC what is recommended may lose against FP32."""
        return float(self.settings.get("max_auc_loss", MAX_AUC_LOSS))

    @property
    def foreign_load(self) -> Spread | None:
        """Return which share of all cores others used while it ran."""
        return Spread.of([value for row in self.rows for value in row.values("foreign_load")])

    @property
    def busy(self) -> bool:
        """Whether others used enough of the machine to make the figures doubtful."""
        load = self.foreign_load
        return load is not None and load.median > BUSY

    def place(self, isa: str) -> str:
        """Return what the figures of an instruction set are to be called: never the board's."""
        if self.circumstances.emulator:
            return f"under {self.circumstances.emulator.split()[0]}, times mean nothing"
        return ISA_NAMES[isa]

    @property
    def failures(self) -> list[str]:
        """Return what could not be measured, a line each."""
        speeds = [f"{row.case}: {row.failed}" for row in self.rows if row.failed]
        networks = [
            f"accuracy of {a.bundle} {a.precision} on {a.device} ({a.isa}): {a.failed}"
            for a in self.accuracies
            if a.failed
        ]
        runs = [f"{run.case}, without a pause: {run.failed}" for run in self.sustained if run.failed]
        return speeds + networks + runs

    def find(self, **wanted: Any) -> list[Row]:
        """Return the measured rows whose cases have all the `wanted` attributes."""
        return [
            row
            for row in self.rows
            if row.rounds and all(getattr(row.case, name) == value for name, value in wanted.items())
        ]

    def accuracy(self, case: Case) -> Accuracy | None:
        """Return the measured accuracy of what a case runs."""
        key = (case.bundle, case.precision, case.device, case.isa)
        found = (a for a in self.accuracies if (a.bundle, a.precision, a.device, a.isa) == key and a.failed is None)
        return next(found, None)

    def to_json(self) -> str:
        """Return the text of report.json."""
        return json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Report":
        """Read what `to_json` wrote.

        Raises:
            DataError: it is no report, or of another format.
        """
        try:
            values = json.loads(text)
            if values.pop("format") != FORMAT:
                raise DataError(f"the report is not of format {FORMAT}; make it again with edge-benchmark")
            return cls(**{name: _read(name, value) for name, value in values.items()})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"no report of edge-benchmark can be read ({error!r})") from None

    @classmethod
    def read(cls, path: Path | str) -> "Report":
        """Read a report.json, or the one in a folder.

        Raises:
            DataError: it can't be read.
        """
        file = Path(path).expanduser()
        file = file / "report.json" if file.is_dir() else file
        try:
            return cls.from_json(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{file}: can't be read ({error}); give a report.json of edge-benchmark") from None
        except DataError as error:
            raise DataError(f"{file}: {error}") from None


def _case(values: Mapping[str, Any]) -> Case:
    return Case(**{**values, "engine": Engine(values["engine"]), "mode": Mode(values["mode"])})


def _row(values: Mapping[str, Any]) -> Row:
    changed = {
        "case": _case(values["case"]),
        "rounds": tuple(values["rounds"]),
        "latencies_ms": tuple(values["latencies_ms"]),
    }
    return Row(**{**values, **changed})


def _read(name: str, value: Any) -> Any:
    readers: dict[str, Any] = {
        "circumstances": lambda v: Circumstances(**{**v, "flags": tuple(v["flags"]), "drivers": tuple(v["drivers"])}),
        "bundles": lambda v: tuple(BundleFacts(**item) for item in v),
        "rows": lambda v: tuple(_row(item) for item in v),
        "accuracies": lambda v: tuple(Accuracy(**item) for item in v),
        "sustained": lambda v: tuple(
            Sustained(_case(item["case"]), item["facts"], tuple(item["series"]), item.get("failed")) for item in v
        ),
        "left_out": lambda v: tuple(LeftOut(**item) for item in v),
        "answer": tuple,
    }
    return readers[name](value) if name in readers else value
