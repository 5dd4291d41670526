"""From options to a plan: which bundles, faces and devices are measured, in which cases."""

import importlib.util
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.measure.accuracy import choose_test_faces
from benchmarks.measure.cases import ENGINE_NAMES, ISA_NAMES, ONNX_FILE, Case, EngineKind, Job, Mode
from benchmarks.options import Options
from benchmarks.results.schema import LeftOut
from board_setup.isa import CAPS, cpu_flags
from edge_runtime.errors import DataError, UsageError
from edge_runtime.inference.core import openvino_core
from edge_runtime.model.bundle import Bundle, find_bundle
from edge_runtime.paths import expand
from train.data.build import load_data
from train.data.catalog import FaceRecord, Quarantined
from train.data.sample import take_readable

TIMED_PICTURES = 32
"""Pictures that every engine is timed on, repeated as often as needed."""

TUNING_PICTURES = 400
"""Default number of faces for accuracy while tuning."""

NEEDED_PACKAGES: Mapping[EngineKind, str] = {
    EngineKind.ARTICLE: "torch",
    EngineKind.PYTORCH: "torch",
    EngineKind.ONNXRUNTIME: "onnxruntime",
}


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        bundles, checkpoints: by the bundle's name in the report.
        records: the faces for accuracy; some of them are timed.
        fingerprint: hash of the data.
        unused: pictures of the data that can't be used.
    """

    options: Options
    bundles: Mapping[str, Bundle]
    records: Sequence[FaceRecord] = ()
    checkpoints: Mapping[str, Path] = field(default_factory=dict)
    devices: tuple[str, ...] = ("CPU",)
    fingerprint: str = ""
    unused: Sequence[Quarantined] = ()

    @property
    def timed(self) -> Sequence[FaceRecord]:
        """The faces whose pictures are timed."""
        return timed_faces(self.records)

    def job(self, case: Case, pictures: tuple[str, ...], **changes: Any) -> Job:
        """Return the job for one round of a case on the files `pictures`."""
        checkpoint = self.checkpoints.get(case.bundle)
        job = Job(
            case=case,
            bundle=str(self.bundles[case.bundle].path),
            checkpoint=str(checkpoint) if checkpoint else None,
            pictures=pictures,
            limits=self.options.limits,
        )
        return replace(job, **changes)


def timed_faces(records: Sequence[FaceRecord]) -> Sequence[FaceRecord]:
    """Return TIMED_PICTURES faces, spread evenly over `records`."""
    step = max(1, len(records) // TIMED_PICTURES)
    return records[::step][:TIMED_PICTURES]


def picture_files(faces: Iterable[FaceRecord], folder: Path) -> tuple[str, ...]:
    """Return the paths of the faces' pictures, for engines that read files; those in tar shards are copied to `folder`.

    Raises:
        PictureError: a shard can't be read.
    """

    def file_of(number: int, content: Path | bytes, suffix: str) -> Path:
        if isinstance(content, Path):
            return content
        path = folder / f"picture-{number}{suffix}"
        path.write_bytes(content)
        return path

    return tuple(str(file_of(n, face.content(), face.path.suffix)) for n, face in enumerate(faces))


def make_plan(options: Options, advance: Callable[[int], None] = lambda _: None) -> Plan:
    """Open everything that `options` name; `advance` is called as pictures are read.

    Raises:
        EdgeError: a bundle, the faces, a checkpoint or an instruction set can't be used.
    """
    check_isas(options.isas)
    bundles = name_bundles([Bundle.open(path) for path in options.model or ()] or [find_bundle()])
    catalog = load_data(options.data, advance=advance)
    count = options.pictures or (TUNING_PICTURES if options.tune else None)
    records, unreadable = take_readable(choose_test_faces(catalog, count))
    if not records:
        raise DataError(f"{options.data}: none of the faces to measure can be read; run prepare-faces again")
    gpus = [name for name in openvino_core().available_devices if name.startswith("GPU")]
    return Plan(
        options=options,
        bundles=bundles,
        records=records,
        checkpoints=match_checkpoints(bundles, options.checkpoint or ()),
        devices=("CPU", *gpus),
        fingerprint=catalog.fingerprint,
        unused=(*catalog.quarantine, *unreadable),
    )


def check_isas(names: Sequence[str]) -> None:
    """Check the values of `--isa`.

    Raises:
        UsageError: one is unknown, or this CPU does not have it.
    """
    for name in names:
        if name not in CAPS:
            raise UsageError(f"--isa {name}: unknown; choose from {', '.join(CAPS)}")
        if name == "avx2" and "avx2" not in cpu_flags():
            raise UsageError("--isa avx2: this CPU has no AVX2; choose native or sse42")


def name_bundles(bundles: Sequence[Bundle]) -> dict[str, Bundle]:
    """Return bundles by their name in the report: the architecture, with as much of the path as tells alike ones apart.

    Raises:
        UsageError: one is given twice.
    """
    kinds = [bundle.contract.architecture for bundle in bundles]
    paths = [bundle.path.resolve().parts for bundle in bundles]
    if len(set(paths)) < len(paths):
        twice = next(bundle.path for bundle, parts in zip(bundles, paths, strict=True) if paths.count(parts) > 1)
        raise UsageError(f"{twice}: is given twice; give each bundle once")
    depth = next(n for n in itertools.count(1) if len({parts[-n:] for parts in paths}) == len(paths))
    return {
        kind if kinds.count(kind) == 1 else f"{kind} ({'/'.join(parts[-depth:])})": bundle
        for kind, parts, bundle in zip(kinds, paths, bundles, strict=True)
    }


def match_checkpoints(bundles: Mapping[str, Bundle], paths: Sequence[Path]) -> dict[str, Path]:
    """Return the checkpoint among `paths` that belongs to each bundle, by the bundle's name.

    Raises:
        CheckpointError: one can't be read.
        UsageError: one belongs to none of the bundles.
    """
    if not paths:
        # Works without PyTorch, as on the board.
        return {}
    from train.models.checkpoint import load_checkpoint

    found: dict[str, Path] = {}
    for path in map(expand, paths):
        architecture = load_checkpoint(path).contract.architecture
        names = [name for name, bundle in bundles.items() if bundle.contract.architecture == architecture]
        names = [name for name in names if name not in found]
        if not names:
            raise UsageError(f"--checkpoint {path}: is a {architecture}; add the bundle exported from it with --model")
        found[names[0]] = path
    return found


def list_cases(plan: Plan) -> tuple[list[Case], list[LeftOut]]:
    """Return all cases of a plan, and the baselines that are left out, with the reason."""
    cases: list[Case] = []
    left_out: list[LeftOut] = []
    for isa, (name, bundle) in itertools.product(plan.options.isas, plan.bundles.items()):
        ours = [
            Case(name, precision.value, mode, device=device, isa=isa)
            for device, precision, mode in itertools.product(plan.devices, bundle.precisions, Mode)
            if device == "CPU" or isa == plan.options.isas[0]
        ]
        cases += ours
        baselines = [
            Case(name, "fp32", Mode.LATENCY, engine=EngineKind.ARTICLE, isa=isa),
            *(
                Case(name, "fp32", mode, engine=engine, isa=isa)
                for engine, mode in itertools.product((EngineKind.PYTORCH, EngineKind.ONNXRUNTIME), Mode)
            ),
            *(replace(case, engine=EngineKind.CEILING) for case in ours if case.mode is Mode.THROUGHPUT),
        ]
        for case in baselines if plan.options.baselines and not plan.options.tune else ():
            if reason := _reason_to_leave_out(case, plan):
                cap = "" if isa == "native" else f", {ISA_NAMES[isa]}"
                left_out.append(LeftOut(f"{case.bundle} by {ENGINE_NAMES[case.engine]}{cap}", reason))
            else:
                cases.append(case)
    return cases, list(dict.fromkeys(left_out))


def _reason_to_leave_out(case: Case, plan: Plan) -> str | None:
    package = NEEDED_PACKAGES.get(case.engine)
    if package and importlib.util.find_spec(package) is None:
        return f"{package} is not installed"
    if case.engine is EngineKind.ONNXRUNTIME:
        if case.isa != "native":
            return "ONNX Runtime can't be capped to an instruction set"
        if ONNX_FILE not in plan.bundles[case.bundle].manifest.files:
            return "the bundle has no ONNX file"
    if case.engine in (EngineKind.ARTICLE, EngineKind.PYTORCH) and case.bundle not in plan.checkpoints:
        return "no --checkpoint, the .pth that the bundle was exported from"
    return None


def left_out_pictures(plan: Plan) -> list[LeftOut]:
    """Return the report's line for pictures that can't be used, if there are any."""
    count = len(plan.unused)
    return [LeftOut(f"{count} of the pictures", "broken, too small or duplicate")] if count else []
