"""The shortcut audit: can real be told from fake without looking at a face?

If the file alone gives the class away (format, size, compression), a detector learns just that, and its figures mean
nothing. Every figure comes from cross-validation, so an AUC of 0.5 is chance.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

from edge_runtime.errors import DataError, PictureError
from edge_runtime.model.contract import LABELS
from edge_runtime.pixels.pictures import open_picture
from train.data.catalog import SEED, FaceRecord
from train.data.sample import pick_faces
from train.data.splits import group_faces
from train.evaluation.metrics import Figure, auc_figure
from train.parallel import Advance, ordered_map

FAULT = 0.6
"""Metadata are a fault if the lower bound of their AUC is above this."""

CONTENT_WARNING, CONTENT_FAULT = 0.65, 0.9
"""An 8×8 thumbnail is a warning above the first and a fault above the second."""

SAMPLE = 2000
"""Faces that are looked at, at most; more do not improve the figure."""

THUMBNAIL = 8
FOLDS = 5
TREES = 50

ALL, BYTES, CONTENT = "all metadata", "bytes per pixel", "8×8 thumbnail"

REMEDIES = {
    "format": "save both classes in one format, or use --harmonize",
    "size": "bring both classes to one size, or use --harmonize",
    BYTES: "compress both classes alike, or use --harmonize",
    "JPEG quantization": "compress both classes with one quality, or use --harmonize",
    "chroma subsampling": "compress both classes with one subsampling, or use --harmonize",
    "EXIF": "remove it in both classes, or use --harmonize",
    ALL: "use --harmonize",
    CONTENT: "collect both classes with the same subjects, framing and backgrounds",
}

CONTENT_REMEDY = (
    "all files are encoded alike, so this is content: collect both classes equally sharp, noisy and detailed"
)
"""For bytes per pixel if nothing else differs, as after --harmonize, which can't help twice."""


class TooFewFacesError(DataError):
    """There are not enough faces of a class to cross-validate."""


class State(str, Enum):
    """What a finding means for training."""

    FINE = "fine"
    WARNING = "warning"
    FAULT = "fault"


@dataclass(frozen=True)
class Finding:
    """How well one property of the files tells the classes apart, and what to do about it."""

    name: str
    auc: Figure
    state: State
    remedy: str


@dataclass(frozen=True)
class Audit:
    """All findings, and how many faces were looked at."""

    findings: tuple[Finding, ...]
    faces: int

    @property
    def faults(self) -> tuple[Finding, ...]:
        """The findings that make the data unfit for training; all metadata together only if no single one is."""
        faults = tuple(finding for finding in self.findings if finding.state == State.FAULT)
        return tuple(finding for finding in faults if finding.name != ALL) or faults

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings that are worth knowing."""
        return tuple(finding for finding in self.findings if finding.state == State.WARNING)


def audit_faces(faces: Sequence[FaceRecord], *, seed: int = SEED, advance: Advance | None = None) -> Audit:
    """Return how well the label of `faces` can be told without looking at a face.

    Raises:
        TooFewFacesError: a class has too few faces to cross-validate.
        DataError: a picture can no longer be read.
    """
    picked = pick_faces(faces, SAMPLE, seed)
    labels = np.array([face.label for face in picked])
    if min(np.bincount(labels, minlength=2)) < 2 * FOLDS:
        raise TooFewFacesError(
            f"the audit needs at least {2 * FOLDS} faces of each class; there are {len(faces)} in total"
        )
    features: dict[str, list[list[float]]] = {}
    for row in ordered_map(_features, picked):
        for name, values in row.items():
            features.setdefault(name, []).append(values)
        if advance:
            advance(1)
    groups = _fold_groups(picked, labels)
    metadata = [name for name in features if name != CONTENT]
    encoded_alike = not any(_varies(features[name]) for name in metadata if name != BYTES)

    def find(name: str, values: Any) -> Finding:
        area = cross_validated_auc(np.asarray(values, dtype=np.float64), labels, groups, seed)
        warning, fault = (CONTENT_WARNING, CONTENT_FAULT) if name == CONTENT else (FAULT, FAULT)
        state = State.FAULT if area["low"] > fault else State.WARNING if area["value"] > warning else State.FINE
        remedy = CONTENT_REMEDY if encoded_alike and name in (BYTES, ALL) else REMEDIES[name]
        return Finding(name, area, state, remedy)

    together = np.hstack([np.asarray(features[name]) for name in metadata])
    findings = (find(ALL, together), *(find(name, features[name]) for name in (*metadata, CONTENT)))
    return Audit(findings, len(picked))


def _fold_groups(faces: Sequence[FaceRecord], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return a group number for each face; a group is never cut by a fold.

    These are the groups of the splits. If a class has fewer groups than there are folds, each picture is its own group:
    otherwise a fold would have to learn that class without an example, and would miss any leak.
    """
    groups = np.unique(group_faces(faces), return_inverse=True)[1]
    for label in range(len(LABELS)):
        if len(np.unique(groups[labels == label])) < FOLDS:
            return np.arange(len(faces))
    return groups


def _varies(values: Any) -> bool:
    return bool(np.ptp(values, axis=0).any())


def cross_validated_auc(
    values: NDArray[np.float64], labels: NDArray[np.int64], groups: NDArray[np.int64], seed: int
) -> Figure:
    """Return the AUC of a random forest on `values` [N, F] with its interval, cross-validated by groups."""
    if not _varies(values):
        return {"value": 0.5, "low": 0.5, "high": 0.5}
    model = RandomForestClassifier(TREES, min_samples_leaf=5, max_features=0.3, random_state=seed, n_jobs=1)
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    scores = cross_val_predict(model, values, labels, groups=groups, cv=folds, method="predict_proba")[:, 1]
    return auc_figure(labels, scores, groups=[str(group) for group in groups], bootstrap=200, seed=seed)


def _features(face: FaceRecord) -> dict[str, list[float]]:
    """Return the file's metadata and a thumbnail as numbers, by name."""
    try:
        with open_picture(face.content()) as picture:
            found = _metadata(picture, face.size or face.path.stat().st_size)
        thumbnail = face.read().resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX, reducing_gap=3)
    except (OSError, PictureError):
        raise DataError(f"{face.path}: can no longer be read; run prepare-faces again") from None
    return {**found, CONTENT: [float(value) for value in np.asarray(thumbnail).ravel()]}


def _metadata(picture: Image.Image, size: int) -> dict[str, list[float]]:
    width, height = picture.size
    tables = getattr(picture, "quantization", None) or {}
    luminance, chroma = list(tables.get(0, [])), list(tables.get(1, []))
    subsampling = JpegImagePlugin.get_sampling(picture) if picture.format == "JPEG" else -1
    exif = picture.getexif()
    return {
        "format": [_code(picture.format or ""), _code(picture.mode), float(bool(picture.info.get("progressive")))],
        "size": [float(width), float(height), width / height],
        BYTES: [size / (width * height)],
        "JPEG quantization": [float(sum(luminance)), float(sum(chroma)), _code(str(luminance)), _code(str(chroma))],
        "chroma subsampling": [float(subsampling)],
        "EXIF": [float(len(exif)), float("icc_profile" in picture.info), _code(str(exif.get(0x0110, "")))],
    }


def _code(text: str) -> float:
    """Return a number for a text, the same in every run, for trees to split on."""
    value = 0
    for character in text:
        value = (value * 31 + ord(character)) % 9973
    return float(value)
