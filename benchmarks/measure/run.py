"""A whole run: every case in every round, A B A B …, then accuracy, each in a worker process.

A case that fails is reported and not measured again. A run that is interrupted keeps what it has.
"""

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure.accuracy import Judgement, judge_network, summarize
from benchmarks.measure.cases import STEADY, Case, EngineKind
from benchmarks.measure.children import in_process, run_job
from benchmarks.measure.circumstances import Circumstances
from benchmarks.measure.plan import Plan, left_out_pictures, list_cases, picture_files
from benchmarks.results.schema import Accuracy, BundleFacts, DataFacts, Report, Row, Settings, Sustained
from edge_runtime.errors import EdgeError
from edge_runtime.model.bundle import Bundle
from edge_runtime.model.profile import bundle_key
from export.children.scratch import ScratchFolder
from train.data.catalog import Catalog
from train.evaluation.logits import face_qualities
from train.evaluation.training_faces import among, bundle_faces

TRIES = 2
"""How many times a round that the machine slowed down is measured again."""

MAX_DIFFERENCE = 0.01
"""How far a baseline's logits may be from FP32's before it counts as another network."""

Advance = Callable[[str], None]
"""Called with a description of each step before it starts."""


class Run:
    """Measures a plan step by step; `report` gives what is known so far."""

    def __init__(
        self,
        plan: Plan,
        circumstances: Circumstances,
        *,
        cases: Sequence[Case] | None = None,
        advance: Advance = lambda _: None,
    ) -> None:
        self.plan, self._advance = plan, advance
        # An empty cache for each run, so that its first start compiles.
        self._scratch = ScratchFolder()
        self._pictures = picture_files(plan.timed, self._scratch.path)
        planned, left_out = list_cases(plan)
        self.cases = planned if cases is None else list(cases)
        self._rows = {case.key: Row(case) for case in self.cases}
        self._logits: dict[str, NDArray[np.float32]] = {}
        self._latencies: dict[str, list[list[float]]] = {}
        self._accuracies: list[Accuracy] = []
        self._sustained: list[Sustained] = []
        self._repeated = 0
        options = plan.options
        self._base = Report(
            circumstances=circumstances,
            bundles=tuple(bundle_facts(name, bundle) for name, bundle in plan.bundles.items()),
            data=DataFacts(
                faces=len(plan.records),
                shown=len(self._pictures),
                fingerprint=plan.fingerprint,
                trained={name: len(among(bundle_faces(b), plan.records)) for name, b in plan.bundles.items()},
            ),
            settings=Settings(**vars(options.limits), rounds=options.rounds, max_auc_loss=options.max_auc_loss),
            left_out=(*left_out, *left_out_pictures(plan)),
        )

    @property
    def steps(self) -> int:
        """How many steps rounds and accuracy take."""
        return len(self.cases) * self.plan.options.rounds + len(self.networks())

    def report(self, *, complete: bool = True) -> Report:
        """Return what is known so far."""
        rows = tuple(self._compare_with_fp32(row) for row in self._rows.values())
        return replace(
            self._base,
            rows=rows,
            complete=complete,
            accuracies=tuple(self._accuracies),
            sustained=tuple(self._sustained),
            repeated=self._repeated,
        )

    def measure_rounds(self) -> None:
        """Measure every case once per round."""
        for _, case in itertools.product(range(self.plan.options.rounds), self.cases):
            self.measure(case)

    def row(self, case: Case) -> Row:
        """Return what is known about a case so far."""
        return self._rows[case.key]

    def measure_slow_rounds_again(self) -> None:
        """Measure each round again during which the machine's pace was lower than the run's by more than STEADY.

        A round that is slow again is tried once more; then it stays, and the report warns of the pace.
        """
        for _ in range(TRIES):
            rows = [row for row in self._rows.values() if row.failed is None]
            paces = [pace for row in rows for pace in row.values("pace")]
            limit = float(np.percentile(paces, 90)) / STEADY if paces else 0.0
            slow = [
                (row.case, n) for row in rows for n, found in enumerate(row.rounds) if found.get("pace", limit) < limit
            ]
            for case, number in slow:
                self.measure(case, number)
            self._repeated += len(slow)

    def measure(self, case: Case, number: int | None = None) -> None:
        """Measure a case once more, or its round `number` again, unless the case failed before.

        Of two measurements of a round, the one at the higher pace is kept.
        """
        row = self._rows[case.key]
        number = len(row.rounds) if number is None else number
        self._advance(f"round {number + 1}: {case}")
        if row.failed is not None:
            return
        try:
            found = run_job(self.plan.job(case, self._pictures, outputs=not row.rounds), self._scratch.path)
        except EdgeError as error:
            self._rows[case.key] = replace(row, failed=str(error))
            return
        if found.logits:
            self._logits[case.key] = np.asarray(found.logits, np.float32)
        before = row.rounds[number : number + 1]
        if before and before[0].get("pace", 0.0) > found.figures.get("pace", 0.0):
            return
        latencies = self._latencies.setdefault(case.key, [])
        latencies[number : number + 1] = [found.latencies_ms]
        self._rows[case.key] = replace(
            row,
            rounds=(*row.rounds[:number], found.figures, *row.rounds[number + 1 :]),
            facts=found.facts,
            latencies_ms=tuple(np.mean(latencies, axis=0).round(4).tolist()),
        )

    def _compare_with_fp32(self, row: Row) -> Row:
        """Return `row` with its differences from FP32's logits; a baseline that differs too much has failed."""
        same = {"engine": EngineKind.RUNTIME, "bundle": row.case.bundle, "precision": "fp32", "device": "CPU"}
        fp32 = (other.case.key for other in self._rows.values() if other.case.has(**same))
        logits = self._logits.get(row.case.key)
        reference = next((self._logits[key] for key in fp32 if key in self._logits), None)
        if logits is None or reference is None:
            return row
        difference = float(np.abs(logits - reference).max())
        changed = (logits[:, 1] >= logits[:, 0]) != (reference[:, 1] >= reference[:, 0])
        row = replace(row, difference=difference, changed=int(changed.sum()))
        if row.case.engine is EngineKind.RUNTIME or difference <= MAX_DIFFERENCE:
            return row
        reason = f"its logits differ from FP32's by up to {difference:.2g}, so it is another network"
        return replace(row, rounds=(), failed=f"{reason}; give the --checkpoint that the bundle was exported from")

    def networks(self) -> list[Accuracy]:
        """Return the networks whose accuracy is measured, FP32 first in each place."""
        ours = [case for case in self.cases if case.engine is EngineKind.RUNTIME]
        places = {(case.bundle, case.precision, case.device, case.isa): case for case in ours}.values()
        return [Accuracy(bundle=c.bundle, precision=c.precision, device=c.device, isa=c.isa) for c in places]

    def measure_accuracy(self) -> None:
        """Measure the accuracy of every network of the plan."""
        references: dict[tuple[str, str, str], Judgement] = {}
        qualities = {
            name: face_qualities(self.plan.records, bundle.contract)
            for name, bundle in self.plan.bundles.items()
            if any(calibration.groups for calibration in bundle.contract.calibrations.values())
        }
        with ScratchFolder() as folder:
            catalog = folder / "catalog.csv"
            Catalog(tuple(self.plan.records)).write(catalog)
            for network in self.networks():
                self._advance(
                    f"accuracy: {network.bundle} {network.precision.upper()} on {network.device} ({network.isa})"
                )
                bundle, place = self.plan.bundles[network.bundle], (network.isa, network.bundle, network.device)
                try:
                    logits, network = in_process(judge_network, network, bundle.path, catalog, isa=network.isa)
                except EdgeError as error:
                    self._accuracies.append(replace(network, failed=str(error)))
                    continue
                calibration = bundle.contract.calibration(network.precision)
                judged = Judgement(logits, calibration, qualities.get(network.bundle))
                self._accuracies.append(summarize(network, self.plan.records, judged, references.get(place)))
                if network.precision == "fp32":
                    references[place] = judged

    def sustain(self, case: Case, seconds: float) -> None:
        """Measure one case continuously for `seconds`; what was measured is kept, however it ends."""
        self._advance(f"{seconds / 60:g} min sustained: {case}")
        limits = replace(self.plan.options.limits, seconds=1.0)
        with ScratchFolder() as folder:
            series = folder / "series.jsonl"
            job = self.plan.job(case, self._pictures, limits=limits, sustained_s=seconds, series=str(series))
            failed = None
            try:
                run_job(job, self._scratch.path)
            except EdgeError as error:
                failed = str(error)
            finally:
                found = tuple(read_series(series))
                self._sustained.append(Sustained(case=case, facts=self.row(case).facts, series=found, failed=failed))


def read_series(path: Path) -> Iterator[dict[str, float]]:
    """Yield the rows of a sustained run; an incomplete last line is left out."""
    for line in path.read_text().splitlines(keepends=True) if path.exists() else ():
        if line.endswith("\n"):
            yield json.loads(line)


def bundle_facts(name: str, bundle: Bundle) -> BundleFacts:
    """Return what a report says about a bundle."""
    contract = bundle.contract
    sizes = {
        p.value: round(sum(f.stat().st_size for f in (bundle.path / p.value).glob("model.*")) / 1e6, 2)
        for p in bundle.precisions
    }
    return BundleFacts(
        name=name,
        architecture=contract.architecture,
        version=contract.version,
        demo=contract.demo,
        sha256=bundle_key(bundle),
        sizes_mb=sizes,
    )
