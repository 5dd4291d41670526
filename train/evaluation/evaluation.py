"""An evaluation: every figure of a detector on some faces, as values for JSON and the report."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_runtime.errors import CheckpointError, DataError, UsageError
from edge_runtime.judging.decide import fake_scores
from edge_runtime.model.bundle import Bundle
from edge_runtime.model.contract import CHECKPOINT, LABELS, Calibration, ModelContract, Precision
from edge_runtime.model.hub import hub_address
from edge_runtime.paths import expand
from train.data.build import has_splits
from train.data.catalog import Catalog, FaceRecord
from train.data.splits import group_faces
from train.evaluation.logits import Corrupt, Logits, adjust, bundle_logits, checkpoint_logits
from train.evaluation.method import SLICE_BOOTSTRAP, method
from train.evaluation.metrics import RANKING, measure, measure_decided
from train.evaluation.training_faces import bundle_faces, checkpoint_faces
from train.parallel import Advance

ALARM_SPREAD = 0.02
"""If the scores' standard deviation is smaller, they hardly depend on the picture."""

SIZES = (0, 128, 256, 512)
"""Lower bounds of the bins of face sizes, in pixels of the shorter side."""

MIN_SLICE = 20
"""Faces of each class that a slice needs for figures of its own."""

SLICE_FIGURES = (*RANKING, "balanced_accuracy")


@dataclass(frozen=True)
class Subject:
    """A detector to be judged: a checkpoint, or one precision of a bundle.

    `trained` holds the mark of each face that it was trained on (train.evaluation.training_faces), if that is known.
    """

    name: str
    path: Path
    contract: ModelContract
    precision: str
    logits: Callable[[Sequence[FaceRecord], Advance | None, Corrupt | None], Logits]
    trained: frozenset[str] = frozenset()

    @property
    def calibration(self) -> Calibration:
        """Temperature and thresholds of its precision."""
        return self.contract.calibration(self.precision)


def open_subject(path: Path | str, *, precision: str | None = None, device: str = "CPU") -> Subject:
    """Open a checkpoint (a file) or a bundle (a folder, or hf://user/name@revision).

    Args:
        path: of either.
        precision: of a bundle; None takes the smallest that it holds.
        device: that a bundle runs on.

    Raises:
        CheckpointError, BundleError: it can't be opened.
        UsageError: the bundle does not hold this precision.
    """
    if hub_address(path):
        return _open_bundle(path, precision, device)
    path = expand(path)
    if not path.exists():
        raise CheckpointError(f"{path}: not found; give a checkpoint (.pth) or a bundle")
    if path.is_dir():
        return _open_bundle(path, precision, device)
    from train.models.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(path)

    def logits(records: Sequence[FaceRecord], progress: Advance | None, corrupt: Corrupt | None) -> Logits:
        found = checkpoint_logits(path, records, progress=progress, corrupt=corrupt)
        return adjust(found, records, checkpoint.contract, checkpoint.contract.calibration(CHECKPOINT), corrupt)

    return Subject(
        name=f"{path.absolute().parent.name}/{path.name}",
        path=path,
        contract=checkpoint.contract,
        precision=CHECKPOINT,
        logits=logits,
        trained=checkpoint_faces(checkpoint),
    )


def _open_bundle(named: Path | str, precision: str | None, device: str) -> Subject:
    bundle = Bundle.open(named)
    path = bundle.path
    held = [entry.value for entry in bundle.precisions]
    chosen = precision or (held[-1] if held else Precision.INT8.value)
    if chosen not in held:
        raise UsageError(
            f"--precision {chosen}: {bundle.origin} holds {', '.join(held) or 'none'}; choose one of these"
        )

    def logits(records: Sequence[FaceRecord], progress: Advance | None, corrupt: Corrupt | None) -> Logits:
        found = bundle_logits(bundle, chosen, records, device=device, progress=progress, corrupt=corrupt)
        return adjust(found, records, bundle.contract, bundle.contract.calibration(chosen), corrupt)

    return Subject(
        name=f"{bundle.address or path.name} ({chosen})",
        path=path,
        contract=bundle.contract,
        precision=chosen,
        logits=logits,
        trained=bundle_faces(bundle),
    )


@dataclass(frozen=True)
class JudgedFaces:
    """Faces that could be read, with their logits [N, 2]."""

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
        return fake_scores(self.logits, self.calibration)

    @cached_property
    def groups(self) -> list[str]:
        """The group of each face, for the bootstrap."""
        return group_faces(self.faces)


def judge_faces(
    subject: Subject,
    records: Sequence[FaceRecord],
    progress: Advance | None = None,
    corrupt: Corrupt | None = None,
) -> JudgedFaces:
    """Judge `records`; unreadable pictures are listed and left out.

    Raises:
        DataError: none can be read.
    """
    logits = subject.logits(records, progress, corrupt)
    read = np.asarray(np.isfinite(logits).all(axis=1))
    if not read.any():
        raise DataError(f"none of the {len(records)} pictures can be read; run prepare-faces again")
    return JudgedFaces(
        faces=tuple(face for face, fine in zip(records, read, strict=True) if fine),
        logits=logits[read],
        calibration=subject.calibration,
        unreadable=tuple(face.path for face, fine in zip(records, read, strict=True) if not fine),
    )


def choose_split(data: Path, catalog: Catalog, wanted: str) -> str:
    """Return the split to judge: `wanted`, or for `auto` the test split (valid if there is none).

    For `auto`, a folder without splits is judged whole. `data` is what `catalog` was loaded from.
    """
    if wanted != "auto":
        return wanted
    held_out = [name for name in ("test", "valid") if catalog.split(name)]
    return held_out[0] if held_out and has_splits(data) else "all"


@dataclass(frozen=True)
class Evaluation:
    """Everything that was measured; `figures` at the balanced threshold, `half` at 0.5, see modules method, origins."""

    subject: Mapping[str, Any]
    data: Mapping[str, Any]
    calibration: Mapping[str, Any]
    figures: Mapping[str, Any]
    half: Mapping[str, Any]
    decided: Mapping[str, Any]
    slices: Sequence[Mapping[str, Any]]
    robustness: Sequence[Mapping[str, Any]] = ()
    alarms: Sequence[str] = ()
    origins: Mapping[str, Any] = field(default_factory=dict)
    method: Mapping[str, Any] = field(default_factory=dict)


def summarize(
    subject: Subject,
    judged: JudgedFaces,
    data: Mapping[str, Any],
    *,
    bootstrap: int = 1000,
    robustness: Sequence[Mapping[str, Any]] = (),
    alarms: Sequence[str] = (),
    origins: Mapping[str, Any] | None = None,
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
        origins=origins or {},
        method=method(subject.path, Catalog(judged.faces).fingerprint, bootstrap=bootstrap),
    )


def score_alarms(scores: NDArray[np.float64]) -> list[str]:
    """Return warnings about scores that hardly vary, or that are all on one side of 0.5."""
    if float(scores.std()) < ALARM_SPREAD:
        return [f"the scores hardly vary (standard deviation {scores.std():.4f}): the model does not look at the faces"]
    if (scores >= 0.5).all() or (scores < 0.5).all():
        return ["every face gets the same answer at 0.5: look at the AUC and fit the thresholds on data like this"]
    return []


def slice_figures(judged: JudgedFaces, bootstrap: int) -> list[dict[str, Any]]:
    """Return figures by source, generator and face size, where there are several of a kind.

    A slice that holds only one class is measured against all faces of the other.
    """
    sizes = []
    for face in judged.faces:
        left, top, right, bottom = face.box or (0, 0, face.width, face.height)
        place = int(np.searchsorted(SIZES, int(min(right - left, bottom - top)), side="right"))
        upper = f"to {SIZES[place] - 1} pixels" if place < len(SIZES) else "pixels and more"
        sizes.append(f"{SIZES[place - 1]} {upper}")
    kinds = {
        "source": [face.source for face in judged.faces],
        "generator": [face.generator for face in judged.faces],
        "face size": sizes,
    }
    rows = []
    for kind, names in kinds.items():
        for name in sorted(set(names) - {""}) if len(set(names)) > 1 else ():
            inside = np.array([own == name for own in names])
            rows.append({"by": kind, "name": name, **_slice(judged, inside, min(bootstrap, SLICE_BOOTSTRAP))})
    return rows


def _slice(judged: JudgedFaces, inside: NDArray[np.bool_], bootstrap: int) -> dict[str, Any]:
    labels = judged.labels
    counts = {name: int((inside & (labels == label)).sum()) for label, name in enumerate(LABELS)}
    against = inside.copy()
    for label, name in enumerate(LABELS):
        if not counts[name]:
            against |= labels == label
    if min((against & (labels == label)).sum() for label in (0, 1)) < MIN_SLICE:
        return counts
    figures = measure(
        labels[against],
        judged.scores[against],
        threshold=judged.calibration.balanced,
        groups=[group for group, used in zip(judged.groups, against, strict=True) if used],
        bootstrap=bootstrap,
    )
    return {**counts, **{name: figures[name] for name in SLICE_FIGURES}}


def risk_by_coverage(judged: JudgedFaces) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return coverage and error among the decided faces when the least certain faces are left out first."""
    calibration = judged.calibration
    wrong = (judged.scores >= calibration.balanced) != (judged.labels == 1)
    share = min(max(calibration.balanced, 1e-6), 1 - 1e-6)
    threshold_margin = calibration.temperature * (np.log(share / (1 - share)) - calibration.bias)
    margin = judged.logits[:, 1] - judged.logits[:, 0]
    order = np.argsort(-np.abs(margin - threshold_margin))
    count = np.arange(1, len(order) + 1)
    return count / len(order), np.cumsum(wrong[order]) / count
