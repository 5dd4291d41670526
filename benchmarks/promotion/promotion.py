"""What `compare-detectors` does, as a function to call from a notebook."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure.circumstances import Circumstances
from benchmarks.promotion.gates import Gate, accuracy_gates, machine_gate
from benchmarks.promotion.measure import choose_faces, judge_both, measure_machine
from edge_runtime.errors import UsageError
from edge_runtime.model.bundle import MANIFEST, Bundle
from edge_runtime.model.contract import CHECKPOINT, Precision
from train.evaluation.evaluation import Subject, open_subject


@dataclass(frozen=True)
class Comparison:
    """The answer of `compare-detectors` and what it rests on.

    Attributes:
        promoted: whether every gate passes.
        reason: why, in one line.
        old, new: name, version, precision and `sha256` of each detector (of a bundle's model.json or the checkpoint).
        data: the faces by `--data`, and how many were judged and left out.
        gates: all of them.
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
    command: str = "",
) -> Comparison:
    """Compare two detectors on the test splits of `data`, and two bundles also in rate and memory.

    Args:
        old: a checkpoint or a bundle.
        new: likewise.
        data: what `train.data.build.load_data` reads, one after the other.
        allowed: how much worse each figure may get; see `gates.ALLOWED`.
        precision: of bundles; None takes the smallest that both hold.
        bootstrap: resamples.
        rounds: how often rate and memory are measured.
        seconds: how long each time.
        command: for the report.

    Raises:
        EdgeError: a detector or the data can't be used.
    """
    around = Circumstances.here(command)
    pair = [open_subject(path, precision=_precision(path, precision, (old, new))) for path in (old, new)]
    chosen = choose_faces(data, pair)
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
    failed = [gate for gate in gates if not gate.passed]
    return Comparison(
        promoted=not failed,
        reason=_reason(failed, gates, len(before.faces)),
        old=_described(pair[0]),
        new=_described(pair[1]),
        data={"faces": len(before.faces), "by": chosen.counts, "trained": chosen.trained},
        gates=gates,
        notes=notes,
        circumstances=around,
    )


def _precision(path: Path, wanted: str | None, pair: tuple[Path, Path]) -> str | None:
    """Return the precision to judge a bundle in: of two, the same, or their difference would be counted too."""
    bundles = [Bundle.open(one) for one in pair if one.is_dir()]
    if not path.is_dir() or not bundles:
        return None
    held = [entry for entry in Precision if all(entry in bundle.precisions for bundle in bundles)]
    if not held:
        raise UsageError(f"{pair[0]} and {pair[1]} have no precision in common; export both in int8")
    return wanted or held[-1].value


def _reason(failed: Sequence[Gate], gates: Sequence[Gate], faces: int) -> str:
    if not failed:
        sources = len({gate.where for gate in gates}) - 1
        by = f" of {sources} sources" if sources > 1 else ""
        return f"no worse on {faces} faces{by}: all {len(gates)} gates pass"
    more = f"; {len(failed) - 1} more of {len(gates)} gates fail" if failed[1:] else ""
    return f"{failed[0].where}: {failed[0].why}{more}"


def _described(subject: Subject) -> dict[str, Any]:
    file = subject.path / MANIFEST if subject.path.is_dir() else subject.path
    return {
        "name": subject.name,
        "architecture": subject.contract.architecture,
        "version": subject.contract.version,
        "precision": subject.precision,
        "demo": subject.contract.demo,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }
