"""What `compare-detectors` does, as a function to call from a notebook."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure.circumstances import Circumstances
from benchmarks.promotion.field import field_test
from benchmarks.promotion.gates import Gate, accuracy_gates, machine_gate
from benchmarks.promotion.measure import faces_to_compare, judge_both, measure_machine
from edge_runtime.errors import UsageError
from edge_runtime.model.bundle import Bundle
from edge_runtime.model.contract import CHECKPOINT, Precision
from edge_runtime.model.hub import hub_address
from edge_runtime.paths import expand
from edge_runtime.review.database import ReviewDatabase
from edge_runtime.review.sequential import FieldState
from train.evaluation.evaluation import Subject, open_subject
from train.evaluation.method import model_sha256


@dataclass(frozen=True)
class Comparison:
    """The answer of `compare-detectors` and what it rests on.

    Attributes:
        promoted: whether every gate passes.
        reason: why, in one line.
        old, new: name, version, precision and `sha256` of each detector (of a bundle's model.json or the checkpoint).
        data: the faces by `--data`, and how many were judged and left out.
        gates: all of them.
        field: the state and text of the reviewed disagreements (`edge_runtime.review.sequential`), if they were given.
        notes: what was not measured.
        circumstances: of the run.
    """

    promoted: bool
    reason: str
    old: Mapping[str, Any]
    new: Mapping[str, Any]
    data: Mapping[str, Any]
    gates: Sequence[Gate]
    notes: Sequence[str]
    circumstances: Circumstances
    field: Mapping[str, str] | None = None


def compare_detectors(
    old: Path,
    new: Path,
    data: Sequence[Path],
    *,
    allowed: Mapping[str, float],
    precision: str | None = None,
    bootstrap: int = 1000,
    rounds: int = 5,
    seconds: float = 2.0,
    disagreements: Sequence[Path] = (),
    reviews: Path | None = None,
    command: str = "",
) -> Comparison:
    """Compare two detectors on the test splits of `data`, two bundles also in rate and memory, and by their reviewed
    disagreements in the field. Without `data` the last decide alone, and must show that the new one is better.

    Args:
        old: a checkpoint or a bundle.
        new: likewise.
        data: what `train.data.build.load_data` reads, one after the other.
        allowed: how much worse each figure may get; see `gates.ALLOWED`.
        precision: of bundles; None takes the smallest that both hold.
        bootstrap: resamples.
        rounds: how often rate and memory are measured.
        seconds: how long each time.
        disagreements: files of `edge-detect --shadow`.
        reviews: the database with the reviews of their faces.
        command: for the report.

    Raises:
        EdgeError: a detector or the data can't be used.
    """
    around = Circumstances.here(command)
    pair = [open_subject(path, precision=_precision(path, precision, (old, new))) for path in (old, new)]
    field = None
    if reviews is not None:
        versions = [subject.contract.version for subject in pair]
        if versions[0] == versions[1]:
            raise UsageError(
                f"--disagreements: both detectors have version {versions[0]}, so their lines can't be told apart; "
                "give export-openvino another --version"
            )
        field = field_test([expand(path) for path in disagreements], ReviewDatabase(reviews), *versions)
    measured = _measure(pair, data, allowed, bootstrap, rounds, seconds) if data else _Measured([], [], {"faces": 0})
    failed = [gate for gate in measured.gates if not gate.passed]
    wanted = (FieldState.OPEN, FieldState.BETTER) if data else (FieldState.BETTER,)
    held_back = field is not None and field.state not in wanted
    return Comparison(
        promoted=not failed and not held_back,
        reason=_reason(failed, measured, field.text() if field and (held_back or not data) else ""),
        old=_described(pair[0]),
        new=_described(pair[1]),
        data=measured.data,
        gates=measured.gates,
        notes=measured.notes,
        circumstances=around,
        field={"state": field.state.value, "text": field.text()} if field else None,
    )


@dataclass(frozen=True)
class _Measured:
    """What was measured on faces."""

    gates: list[Gate]
    notes: list[str]
    data: Mapping[str, Any]


def _measure(
    pair: Sequence[Subject],
    data: Sequence[Path],
    allowed: Mapping[str, float],
    bootstrap: int,
    rounds: int,
    seconds: float,
) -> _Measured:
    chosen = faces_to_compare(data, pair)
    before, after = judge_both(pair, chosen.faces)
    gates, small = accuracy_gates(before, after, allowed, bootstrap)
    notes = [f"{name}: too few faces for gates of its own" for name in small]
    if chosen.trained:
        notes.append(f"{chosen.trained} faces were left out because a detector was trained on them")
    if before.unreadable:
        notes.append(f"{len(before.unreadable)} pictures can't be read, such as {before.unreadable[0]}")
    if CHECKPOINT in (pair[0].precision, pair[1].precision):
        notes.append("rate and memory were not measured: give two bundles")
    else:
        first, second = measure_machine(pair, before.faces, rounds=rounds, seconds=seconds)
        gates += [machine_gate(name, first[name], second[name], allowed[name]) for name in first]
    return _Measured(gates, notes, {"faces": len(before.faces), "by": chosen.counts, "trained": chosen.trained})


def _is_bundle(path: Path) -> bool:
    return bool(hub_address(path)) or expand(path).is_dir()


def _precision(path: Path, wanted: str | None, pair: tuple[Path, Path]) -> str | None:
    """Return the precision to judge a bundle in: of two, the same, or their difference would be counted too."""
    bundles = [Bundle.open(one) for one in pair if _is_bundle(one)]
    if not _is_bundle(path):
        return None
    held = [entry for entry in Precision if all(entry in bundle.precisions for bundle in bundles)]
    if not held:
        raise UsageError(f"{pair[0]} and {pair[1]} have no precision in common; export both in int8")
    return wanted or held[-1].value


def _reason(failed: Sequence[Gate], measured: _Measured, field: str) -> str:
    """Return the first thing that fails, else what was compared; `field` where the field decides."""
    if field:
        return field
    if not failed:
        sources = len({gate.where for gate in measured.gates}) - 1
        by = f" of {sources} sources" if sources > 1 else ""
        return f"no worse on {measured.data['faces']} faces{by}: all {len(measured.gates)} gates pass"
    more = f"; {len(failed) - 1} more of {len(measured.gates)} gates fail" if failed[1:] else ""
    return f"{failed[0].where}: {failed[0].why}{more}"


def _described(subject: Subject) -> dict[str, Any]:
    return {
        "name": subject.name,
        "architecture": subject.contract.architecture,
        "version": subject.contract.version,
        "precision": subject.precision,
        "demo": subject.contract.demo,
        "sha256": model_sha256(subject.path),
    }
