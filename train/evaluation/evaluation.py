"""An evaluation: every figure of a detector on some faces, as values that JSON holds and the report shows."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.errors import CheckpointError, DataError, UsageError
from edge_runtime.model.bundle import Bundle
from edge_runtime.model.contract import CHECKPOINT, Calibration, ModelContract, Precision
from train.data.build import CATALOG, SPLITS, Catalog, FaceRecord
from train.data.degrade import Condition
from train.data.splits import group_faces
from train.evaluation.logits import Corrupt, Logits, bundle_logits, checkpoint_logits, fake_scores
from train.evaluation.metrics import measure, measure_decided
from train.evaluation.seen import bundle_faces, checkpoint_faces
from train.parallel import Advance

ALARM_SPREAD = 0.02
"""Scores whose standard deviation is under this hardly depend on the picture."""

SIZES = ((0, 128), (128, 256), (256, 512), (512, 1 << 30))
"""Bins of the face's shorter side in pixels: from, up to (exclusive)."""

MIN_SLICE = 20
"""Faces a class that a slice needs for figures of its own."""


@dataclass(frozen=True)
class Subject:
    """A detector to be judged: a checkpoint, or one precision of a bundle.

    `trained` holds the mark of each face that it was trained on (train.evaluation.seen), where that is known.
    """

    name: str
    path: Path
    contract: ModelContract
    precision: str
    logits: Callable[[Sequence[FaceRecord], Advance | None, Corrupt | None], Logits]
    trained: frozenset[str] = frozenset()

    @property
    def calibration(self) -> Calibration:
        """How its logits are read."""
        return self.contract.calibration(self.precision)


def open_subject(path: Path | str, *, precision: str | None = None, device: str = "CPU") -> Subject:
    """Open a checkpoint (a file) or a bundle (a folder).

    Args:
        path: of either.
        precision: of a bundle; the smallest that it holds where None.
        device: that a bundle runs on.

    Raises:
        CheckpointError, BundleError: it can't be opened.
        UsageError: a bundle holds no such precision.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise CheckpointError(f"{path}: not found; give a checkpoint (.pth) or a bundle")
    return _bundle(path, precision, device) if path.is_dir() else _checkpoint(path)


def _checkpoint(path: Path) -> Subject:
    from train.models.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(path)
    contract = checkpoint.contract

    def logits(records: Sequence[FaceRecord], progress: Advance | None, corrupt: Corrupt | None) -> Logits:
        return checkpoint_logits(path, records, progress=progress, corrupt=corrupt)

    name = f"{path.absolute().parent.name}/{path.name}"
    return Subject(name, path, contract, CHECKPOINT, logits, checkpoint_faces(checkpoint))


def _bundle(path: Path, precision: str | None, device: str) -> Subject:
    bundle = Bundle.open(path)
    held = [entry.value for entry in bundle.precisions]
    chosen = precision or (held[-1] if held else Precision.INT8.value)
    if chosen not in held:
        raise UsageError(f"--precision {chosen}: {path} holds {', '.join(held) or 'none'}; choose one of these")

    def logits(records: Sequence[FaceRecord], progress: Advance | None, corrupt: Corrupt | None) -> Logits:
        return bundle_logits(bundle, chosen, records, device=device, progress=progress, corrupt=corrupt)

    return Subject(f"{path.name} ({chosen})", path, bundle.contract, chosen, logits, bundle_faces(bundle))


@dataclass(frozen=True)
class Judged:
    """Faces that could be read, and what the detector says of each."""

    faces: tuple[FaceRecord, ...]
    logits: Logits
    calibration: Calibration
    unreadable: tuple[Path, ...] = ()

    @property
    def labels(self) -> NDArray[np.int64]:
        """0 real, 1 fake."""
        return np.array([face.label for face in self.faces], dtype=np.int64)

    @property
    def scores(self) -> NDArray[np.float64]:
        """Calibrated probabilities of fake."""
        return fake_scores(self.logits, self.calibration.temperature)

    @cached_property
    def groups(self) -> list[str]:
        """What is drawn together in the bootstrap: what the splits keep together too."""
        return group_faces(self.faces)


def judge_faces(
    subject: Subject,
    records: Sequence[FaceRecord],
    progress: Advance | None = None,
    corrupt: Corrupt | None = None,
) -> Judged:
    """Judge `records`; those that can't be read are named and left out.

    Raises:
        DataError: none can be read.
    """
    logits = subject.logits(records, progress, corrupt)
    read = np.asarray(np.isfinite(logits).all(axis=1))
    if not read.any():
        raise DataError(f"none of the {len(records)} pictures can be read; run prepare-faces again")
    faces = tuple(face for face, fine in zip(records, read, strict=True) if fine)
    missing = tuple(face.path for face, fine in zip(records, read, strict=True) if not fine)
    return Judged(faces, logits[read], subject.calibration, missing)


def choose_split(data: Path, catalog: Catalog, wanted: str) -> str:
    """Return the split to judge: `wanted`, or for `auto` all of a plain folder, and the last split of a catalog.

    That is the test split, or validation for a catalog that was split in two.
    """
    if wanted != "auto":
        return wanted
    data = data.expanduser()
    prepared = data.is_file() or (data / CATALOG).is_file() or any((data / name).is_dir() for name in SPLITS)
    held_out = [name for name in ("test", "valid") if catalog.split(name)]
    return held_out[0] if prepared and held_out else "all"


@dataclass(frozen=True)
class Evaluation:
    """Everything that was measured. `figures` are at the balanced threshold, `half` at 0.5."""

    subject: Mapping[str, Any]
    data: Mapping[str, Any]
    calibration: Mapping[str, Any]
    figures: Mapping[str, Any]
    half: Mapping[str, Any]
    decided: Mapping[str, Any]
    slices: Sequence[Mapping[str, Any]]
    robustness: Sequence[Mapping[str, Any]] = ()
    alarms: Sequence[str] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


def summarize(
    subject: Subject,
    judged: Judged,
    data: Mapping[str, Any],
    *,
    bootstrap: int = 1000,
    robustness: Sequence[Mapping[str, Any]] = (),
    alarms: Sequence[str] = (),
) -> Evaluation:
    """Measure everything about `judged`."""
    calibration, labels, scores = judged.calibration, judged.labels, judged.scores
    draws: dict[str, Any] = {"groups": judged.groups, "bootstrap": bootstrap}
    return Evaluation(
        subject={
            "name": subject.name,
            "architecture": subject.contract.architecture,
            "precision": subject.precision,
            "version": subject.contract.version,
            "demo": subject.contract.demo,
        },
        data={
            **data,
            "faces": len(labels),
            "real": int((labels == 0).sum()),
            "fake": int((labels == 1).sum()),
            "unreadable": [str(path) for path in judged.unreadable],
        },
        calibration=asdict(calibration),
        figures=measure(labels, scores, threshold=calibration.balanced, **draws),
        half=measure(labels, scores, **draws),
        decided=measure_decided(labels, scores, low=calibration.low, high=calibration.high, **draws),
        slices=slice_figures(judged, bootstrap),
        robustness=robustness,
        alarms=[*score_alarms(scores), *alarms],
    )


def score_alarms(scores: NDArray[np.float64]) -> list[str]:
    """Return what is suspicious about scores: that they hardly vary, or are all the same side of 0.5."""
    if float(scores.std()) < ALARM_SPREAD:
        return [f"the scores hardly vary (standard deviation {scores.std():.4f}): the model does not look at the faces"]
    if (scores >= 0.5).all() or (scores < 0.5).all():
        return ["every face gets the same answer at 0.5: look at the AUC and fit the thresholds on data like this"]
    return []


def slice_figures(judged: Judged, bootstrap: int) -> list[dict[str, Any]]:
    """Return figures by source, generator and face size.

    A slice that holds one class alone is measured against all faces of the other.
    """
    rows = []
    for kind, names in _slices(judged.faces).items():
        for name in sorted(set(names) - {""}) if len(set(names)) > 1 else ():
            inside = np.array([own == name for own in names])
            rows.append({"by": kind, "name": name, **_slice(judged, inside, bootstrap)})
    return rows


def _slices(faces: Sequence[FaceRecord]) -> dict[str, list[str]]:
    return {
        "source": [face.source for face in faces],
        "generator": [face.generator for face in faces],
        "face size": [_size_name(face) for face in faces],
    }


def _size_name(face: FaceRecord) -> str:
    side = min(face.width, face.height)
    if face.box:
        side = int(min(face.box[2] - face.box[0], face.box[3] - face.box[1]))
    low, high = next((low, high) for low, high in SIZES if low <= side < high)
    return f"{low} pixels and more" if high > 1 << 20 else f"{low} to {high - 1} pixels"


def _slice(judged: Judged, inside: NDArray[np.bool_], bootstrap: int) -> dict[str, Any]:
    labels, scores = judged.labels, judged.scores
    counts = {"real": int((inside & (labels == 0)).sum()), "fake": int((inside & (labels == 1)).sum())}
    against = inside.copy()
    for label, name in enumerate(("real", "fake")):
        if not counts[name]:
            against |= labels == label
    if min((against & (labels == label)).sum() for label in (0, 1)) < MIN_SLICE:
        return counts
    groups = [group for group, used in zip(judged.groups, against, strict=True) if used]
    figures = measure(
        labels[against],
        scores[against],
        threshold=judged.calibration.balanced,
        groups=groups,
        bootstrap=min(bootstrap, 200),
    )
    wanted = ("auc", "average_precision", "eer", "tpr_at_1_fpr", "tpr_at_5_fpr", "balanced_accuracy")
    return {**counts, **{name: figures[name] for name in wanted}}


def robustness_row(
    subject: Subject, faces: Sequence[FaceRecord], condition: Condition, bootstrap: int
) -> dict[str, Any]:
    """Judge `faces` after `condition` and return the row: AUC, balanced accuracy and what the thresholds do."""

    def corrupt(picture: Any, record: FaceRecord) -> Any:
        return condition(picture, int(record.sha256[:8], 16))

    return condition_row(condition.name, judge_faces(subject, faces, corrupt=corrupt), bootstrap)


def condition_row(name: str, judged: Judged, bootstrap: int) -> dict[str, Any]:
    """Return a row of the robustness grid for faces that were judged under a condition called `name`."""
    calibration, labels, scores = judged.calibration, judged.labels, judged.scores
    figures = measure(labels, scores, threshold=calibration.balanced, groups=judged.groups, bootstrap=bootstrap)
    decided = measure_decided(
        labels, scores, low=calibration.low, high=calibration.high, groups=judged.groups, bootstrap=bootstrap
    )
    wanted = {key: figures[key] for key in ("auc", "balanced_accuracy", "recall")}
    return {"name": name, **wanted, **{key: decided[key] for key in ("coverage", "fpr", "fnr")}}


def count_look(faces: Sequence[FaceRecord], subject: Subject, state: Path | None = None) -> int:
    """Note that `faces` were judged, and return how often they have been: a test split wears out by being looked at.

    The notes are lines in `evaluations.jsonl` in the user's state folder.
    """
    folder = state or Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "deepfake-edge"
    mark = sha256("".join(sorted(face.sha256 for face in faces)).encode()).hexdigest()[:16]
    when = datetime.now(timezone.utc).isoformat(timespec="seconds")
    line = json.dumps({"faces": mark, "count": len(faces), "model": subject.name, "time": when})
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "evaluations.jsonl").open("a+", encoding="utf-8") as file:
            file.write(line + "\n")
            file.seek(0)
            return sum(f'"{mark}"' in before for before in file)
    except OSError:
        # A home that can't be written to must not stop an evaluation.
        return 1


def risk_by_coverage(judged: Judged) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return coverage and error among the decided when the least certain faces are left out first."""
    scores, balanced = judged.scores, judged.calibration.balanced
    wrong = (scores >= balanced) != (judged.labels == 1)
    order = np.argsort(-np.abs(judged.logits[:, 1] - judged.logits[:, 0] - _margin_of(judged.calibration)))
    count = np.arange(1, len(order) + 1)
    return count / len(order), np.cumsum(wrong[order]) / count


def _margin_of(calibration: Calibration) -> float:
    """Return the difference of logits at which the score is the balanced threshold."""
    share = min(max(calibration.balanced, 1e-6), 1 - 1e-6)
    return float(calibration.temperature * np.log(share / (1 - share)))
