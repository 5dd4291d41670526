"""A whole run: every case in every round, then accuracy, in child processes, A B A B ….

A case that fails once is told of and left alone from then on; a run that is interrupted keeps what it has.
"""

import itertools
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.engines.baselines import missing_package, onnx_file
from benchmarks.measure.accuracy import network_answers, summarise
from benchmarks.measure.cases import ENGINE_NAMES, ISA_NAMES, MAX_AUC_LOSS, Case, Engine, Job, Limits, Mode
from benchmarks.measure.children import run_job
from benchmarks.measure.circumstances import Circumstances
from benchmarks.results.schema import Accuracy, BundleFacts, LeftOut, Report, Row, Sustained
from edge_runtime.errors import DeviceError
from edge_runtime.model.bundle import Bundle
from edge_runtime.model.contract import Calibration
from edge_runtime.model.profile import bundle_key
from train.data.build import Catalog, FaceRecord, Quarantined
from train.evaluation.seen import among, bundle_faces

SHOWN = 32
"""Pictures that every engine is shown, in a circle."""

AGREES = 0.01
"""How far a logit of a row to compare with may be from the FP32 network's."""

UNCAPPABLE = {Engine.ONNXRUNTIME: "ONNX Runtime can't be capped to an instruction set"}


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        bundles: by the name they have in the report.
        records: the faces that accuracy is measured on; some of them are what the stopwatch is shown.
        checkpoints: PyTorch checkpoint by bundle name.
        devices, isas: where.
        rounds, limits: how often, and how long each.
        baselines: whether there are rows to compare with.
        fingerprint: of the data.
        max_auc_loss: what may be lost against FP32 in what is recommended.
        unused: pictures of the data that could not be used.
    """

    bundles: Mapping[str, Bundle]
    records: Sequence[FaceRecord]
    checkpoints: Mapping[str, Path] = field(default_factory=dict)
    devices: tuple[str, ...] = ("CPU",)
    isas: tuple[str, ...] = ("native",)
    rounds: int = 5
    limits: Limits = field(default_factory=Limits)
    baselines: bool = True
    fingerprint: str = ""
    max_auc_loss: float = MAX_AUC_LOSS
    unused: Sequence[Quarantined] = ()

    @property
    def pictures(self) -> tuple[str, ...]:
        """Return the paths that the stopwatch is shown, spread evenly over the records."""
        step = max(1, len(self.records) // SHOWN)
        return tuple(str(record.path) for record in self.records[::step][:SHOWN])

    def job(self, case: Case, **changes: Any) -> Job:
        """Return the job for one round of a case."""
        checkpoint = self.checkpoints.get(case.bundle)
        folder, path = str(self.bundles[case.bundle].path), str(checkpoint) if checkpoint else None
        return Job(case, folder, path, self.pictures, self.limits, **changes)


def cases_of(plan: Plan) -> tuple[list[Case], list[LeftOut]]:
    """Return every case of a plan, and what is left out with its reason."""
    cases: list[Case] = []
    left_out: list[LeftOut] = []
    for isa, (name, bundle) in itertools.product(plan.isas, plan.bundles.items()):
        ours = list(_runtime_cases(plan, name, bundle, isa))
        cases += ours
        if plan.baselines:
            for case in _baseline_cases(name, ours, isa):
                reason = _reason_to_leave_out(case, plan)
                if reason:
                    left_out.append(LeftOut(_what(case), reason))
                else:
                    cases.append(case)
    return cases, list(dict.fromkeys(left_out))


def _what(case: Case) -> str:
    cap = "" if case.isa == "native" else f", {ISA_NAMES[case.isa]}"
    return f"{case.bundle} by {ENGINE_NAMES[case.engine]}{cap}"


def _runtime_cases(plan: Plan, name: str, bundle: Bundle, isa: str) -> Iterator[Case]:
    for device, precision, mode in itertools.product(plan.devices, bundle.precisions, Mode):
        if device == "CPU" or isa == plan.isas[0]:
            yield Case(name, Engine.RUNTIME, precision.value, device, mode, isa)


def _baseline_cases(name: str, ours: Sequence[Case], isa: str) -> Iterator[Case]:
    yield Case(name, Engine.ARTICLE, "fp32", "CPU", Mode.LATENCY, isa)
    for engine, mode in itertools.product((Engine.PYTORCH, Engine.ONNXRUNTIME), Mode):
        yield Case(name, engine, "fp32", "CPU", mode, isa)
    for case in ours:
        if case.mode is Mode.THROUGHPUT:
            yield replace(case, engine=Engine.CEILING)


def _reason_to_leave_out(case: Case, plan: Plan) -> str | None:
    package = missing_package(case.engine)
    if package:
        return f"{package} is not installed"
    if case.isa != "native" and case.engine in UNCAPPABLE:
        return UNCAPPABLE[case.engine]
    if case.engine in (Engine.ARTICLE, Engine.PYTORCH) and case.bundle not in plan.checkpoints:
        return "no --checkpoint, the file that the bundle was made from"
    if case.engine is Engine.ONNXRUNTIME and not onnx_file(plan.bundles[case.bundle]):
        return "the bundle holds no ONNX file"
    return None


Advance = Callable[[str], None]
"""Told of every step before it is done."""


def unused_pictures(plan: Plan) -> list[LeftOut]:
    """Return a line of the report for the pictures that could not be used, where there are any."""
    count = len(plan.unused)
    return [LeftOut(f"{count} of the pictures", "broken, too small, or there twice")] if count else []


class Run:
    """Measures a plan; `report` is what is known so far."""

    def __init__(
        self,
        plan: Plan,
        circumstances: Circumstances,
        *,
        cases: Sequence[Case] | None = None,
        advance: Advance = lambda _: None,
    ) -> None:
        self.plan, self._advance = plan, advance
        # Its own, so that every run's first start is without one, and no user's cache is filled.
        self._folder = tempfile.TemporaryDirectory(prefix="edge-benchmark-")
        self._cache = Path(self._folder.name)
        every, left_out = cases_of(plan)
        self.cases = every if cases is None else list(cases)
        self._rows = {case.key: Row(case) for case in self.cases}
        self._logits: dict[str, NDArray[np.float32]] = {}
        self._quantiles: dict[str, list[list[float]]] = {}
        self._accuracies: list[Accuracy] = []
        self._sustained: list[Sustained] = []
        self._base = Report(
            circumstances,
            tuple(bundle_facts(name, bundle) for name, bundle in plan.bundles.items()),
            {
                "faces": len(plan.records),
                "shown": len(plan.pictures),
                "fingerprint": plan.fingerprint,
                "trained": {
                    name: len(among(bundle_faces(bundle), plan.records)) for name, bundle in plan.bundles.items()
                },
            },
            {"rounds": plan.rounds, **vars(plan.limits), "max_auc_loss": plan.max_auc_loss},
            left_out=(*left_out, *unused_pictures(plan)),
        )

    @property
    def steps(self) -> int:
        """Return how many steps rounds and accuracy take."""
        return len(self.cases) * self.plan.rounds + len(self.networks())

    def report(self, *, complete: bool = True) -> Report:
        """Return what is known so far."""
        rows = tuple(self._against_fp32(row) for row in self._rows.values())
        accuracies, sustained = tuple(self._accuracies), tuple(self._sustained)
        return replace(self._base, rows=rows, complete=complete, accuracies=accuracies, sustained=sustained)

    def measure_rounds(self) -> None:
        """Measure every case once a round, one after the other."""
        for _, case in itertools.product(range(self.plan.rounds), self.cases):
            self.measure(case)

    def row(self, case: Case) -> Row:
        """Return what is known of a case so far."""
        return self._rows[case.key]

    def measure(self, case: Case) -> None:
        """Measure a case once more; one that failed before is left alone."""
        row = self._rows[case.key]
        outputs = not row.rounds
        self._advance(f"round {len(row.rounds) + 1}: {case}")
        if row.failed is not None:
            return
        try:
            done = run_job(self.plan.job(case, outputs=outputs), self._cache)
        except DeviceError as error:
            self._rows[case.key] = replace(row, failed=str(error))
            return
        if outputs and done.result["logits"]:
            self._logits[case.key] = np.asarray(done.result["logits"], np.float32)
        self._quantiles.setdefault(case.key, []).append(done.result["latencies_ms"])
        self._rows[case.key] = replace(
            row,
            rounds=(*row.rounds, {**done.result["figures"], **done.figures}),
            facts=done.result["facts"],
            latencies_ms=tuple(np.mean(self._quantiles[case.key], axis=0).round(4).tolist()),
        )

    def _against_fp32(self, row: Row) -> Row:
        mine = self._logits.get(row.case.key)
        reference = next(
            (
                self._logits[key]
                for key, other in self._rows.items()
                if key in self._logits
                and (other.case.engine, other.case.bundle) == (Engine.RUNTIME, row.case.bundle)
                and (other.case.precision, other.case.device) == ("fp32", "CPU")
            ),
            None,
        )
        if mine is None or reference is None:
            return row
        decided = (mine[:, 1] >= mine[:, 0]) != (reference[:, 1] >= reference[:, 0])
        compared = replace(row, difference=float(np.abs(mine - reference).max()), changed=int(decided.sum()))
        if row.case.engine is not Engine.RUNTIME and (compared.difference or 0.0) > AGREES:
            why = f"its logits are up to {compared.difference:.2g} from FP32's, so it is another network"
            return replace(compared, rounds=(), failed=f"{why}; give the --checkpoint that the bundle was made from")
        return compared

    def networks(self) -> list[Accuracy]:
        """Return the networks whose accuracy is measured, FP32 first of each place."""
        ours = [case for case in self.cases if case.engine is Engine.RUNTIME]
        places = [Accuracy(case.bundle, case.precision, case.device, case.isa) for case in ours]
        return list({(a.isa, a.bundle, a.device, a.precision): a for a in places}.values())

    def measure_accuracy(self) -> None:
        """Measure the accuracy of every network of the plan."""
        references: dict[tuple[str, str, str], tuple[NDArray[np.float32], Calibration]] = {}
        with tempfile.TemporaryDirectory(prefix="edge-benchmark-") as folder:
            catalog = Path(folder, "catalog.csv")
            Catalog(tuple(self.plan.records)).write(catalog)
            for place in self.networks():
                self._advance(f"accuracy: {place.bundle} {place.precision.upper()} on {place.device} ({place.isa})")
                self._accuracies.append(self._judge(place, catalog, references))

    def _judge(
        self, place: Accuracy, catalog: Path, references: dict[tuple[str, str, str], tuple[Any, Calibration]]
    ) -> Accuracy:
        bundle = self.plan.bundles[place.bundle]
        reading = bundle.contract.calibration(place.precision)
        where = (place.isa, place.bundle, place.device)
        try:
            logits, golden = network_answers(bundle.path, place.precision, place.device, place.isa, catalog)
        except DeviceError as error:
            return replace(place, failed=str(error))
        found = summarise(replace(place, golden=golden), self.plan.records, logits, reading, references.get(where))
        if place.precision == "fp32":
            references[where] = (logits, reading)
        return found

    def sustain(self, case: Case, seconds: float) -> None:
        """Measure one case without a pause for `seconds`; what was seen is kept, however it ends.

        Where the device fails meanwhile, that is told as `failed`.
        """
        self._advance(f"{seconds / 60:.0f} minutes without a pause: {case}")
        limits = replace(self.plan.limits, seconds=1.0)
        with tempfile.TemporaryDirectory(prefix="edge-benchmark-") as folder:
            series = Path(folder, "series.jsonl")
            job = replace(self.plan.job(case), limits=limits, sustained_s=seconds, series=str(series))
            failed = None
            try:
                run_job(job, self._cache)
            except DeviceError as error:
                failed = str(error)
            finally:
                rows = tuple(read_series(series))
                self._sustained.append(Sustained(case, self._rows[case.key].facts, rows, failed))


def read_series(path: Path) -> Iterator[dict[str, float]]:
    """Yield the rows of a sustained run; a last line that a death cut short is left out."""
    for line in path.read_text().splitlines(keepends=True) if path.exists() else ():
        if line.endswith("\n"):
            yield json.loads(line)


def bundle_facts(name: str, bundle: Bundle) -> BundleFacts:
    """Return what a report says of a bundle."""
    contract = bundle.contract
    sizes = {
        p.value: round(sum(f.stat().st_size for f in (bundle.path / p.value).glob("model.*")) / 1e6, 2)
        for p in bundle.precisions
    }
    return BundleFacts(name, contract.architecture, contract.version, contract.demo, bundle_key(bundle), sizes)


def name_bundles(bundles: Sequence[Bundle]) -> dict[str, Bundle]:
    """Return bundles by a name for the report: the architecture, with the folder's name where two are alike."""
    kinds = [bundle.contract.architecture for bundle in bundles]
    return {
        kind if kinds.count(kind) == 1 else f"{kind} ({bundle.path.name})": bundle
        for kind, bundle in zip(kinds, bundles, strict=True)
    }
