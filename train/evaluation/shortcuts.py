"""The shortcut audit: can real be told from fake without looking at a face?

If the file alone gives it away (its format, size, compression), a detector learns that and nothing else, and its
figures mean nothing. Every figure is from cross-validation, so chance is an AUC of 0.5.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

from edge_runtime.errors import DataError, PictureError
from edge_runtime.model.contract import LABELS
from edge_runtime.pixels.pictures import read_picture
from train.data.catalog import SEED, FaceRecord
from train.data.sample import pick_faces
from train.data.splits import group_faces
from train.evaluation.metrics import Figure, measure
from train.parallel import Advance, ordered_map
from train.report.html import Section, Table, figure_text, write_report

FAULT = 0.6
"""Metadata that tell the classes apart with an AUC whose lower bound is over this are a fault."""

CONTENT_WARNING, CONTENT_FAULT = 0.65, 0.9
"""The same for an 8×8 thumbnail: over the first a warning, over the second a fault."""

SAMPLE = 2000
"""Faces that are looked at; more do not make the figure better."""

THUMBNAIL = 8
FOLDS = 5
TREES = 50

REMEDIES = {
    "format": "save both classes in one format, or use --harmonize",
    "size": "bring both classes to one size, or use --harmonize",
    "bytes a pixel": "compress both classes alike, or use --harmonize",
    "JPEG quantization": "compress both classes with one quality, or use --harmonize",
    "chroma subsampling": "compress both classes with one subsampling, or use --harmonize",
    "EXIF": "remove it in both classes, or use --harmonize",
    "all of it": "use --harmonize",
    "8×8 thumbnail": "collect both classes with the same subjects, framing and backgrounds",
}

OF_THE_CONTENT = (
    "all files are encoded alike, so this is content: collect both classes equally sharp, noisy and detailed"
)
"""What to do about bytes a pixel where nothing else differs, as after --harmonize, which can't help a second time."""


class TooFewFacesError(DataError):
    """There are not enough faces of a class to cross-validate."""


@dataclass(frozen=True)
class Finding:
    """How well something that is no face tells the classes apart.

    `state` is `fine`, `warning` or `fault`, `remedy` what to do where it is not fine.
    """

    name: str
    auc: Figure
    state: str
    remedy: str


@dataclass(frozen=True)
class Audit:
    """All findings, and how many faces were looked at."""

    findings: tuple[Finding, ...]
    faces: int

    @property
    def faults(self) -> tuple[Finding, ...]:
        """The findings that make the data unfit for training."""
        return tuple(finding for finding in self.findings if finding.state == "fault")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings to know of."""
        return tuple(finding for finding in self.findings if finding.state == "warning")


def audit_faces(faces: Sequence[FaceRecord], *, seed: int = SEED, advance: Advance | None = None) -> Audit:
    """Return how well the label of `faces` can be told without looking at a face.

    Raises:
        TooFewFacesError: there are too few of a class to cross-validate.
        DataError: a picture can't be read any more.
    """
    chosen = pick_faces(faces, SAMPLE, seed)
    labels = np.array([face.label for face in chosen])
    if min(np.bincount(labels, minlength=2)) < 2 * FOLDS:
        raise TooFewFacesError(
            f"the audit needs at least {2 * FOLDS} faces of each class; {len(faces)} are there in all"
        )
    features: dict[str, list[list[float]]] = {}
    for row in ordered_map(_features, (face.path for face in chosen)):
        for name, values in row.items():
            features.setdefault(name, []).append(values)
        if advance:
            advance(1)
    groups = _drawn_together(chosen, labels)

    thumbnails = features.pop("8×8 thumbnail")
    alike = not any(_varies(values) for name, values in features.items() if name != "bytes a pixel")

    def told(name: str, values: Any) -> Finding:
        remedy = OF_THE_CONTENT if alike and name in ("bytes a pixel", "all of it") else REMEDIES[name]
        return _finding(name, _told_by(np.asarray(values, dtype=np.float64), labels, groups, seed), remedy)

    single = [told(name, values) for name, values in features.items()]
    together = told("all of it", np.hstack([np.asarray(values) for values in features.values()]))
    return Audit((together, *single, told("8×8 thumbnail", thumbnails)), len(chosen))


def _drawn_together(faces: Sequence[FaceRecord], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each face the number of what is on one side of a fold with it.

    That is an identity, as in the splits. Where a class is of too few of them, a fold would have to learn the class
    from pictures of the other alone, and find any leak no better than chance: there each picture is by itself.
    """
    groups = np.unique(group_faces(faces), return_inverse=True)[1]
    for label in range(len(LABELS)):
        if len(np.unique(groups[labels == label])) < FOLDS:
            return np.arange(len(faces))
    return groups


def _varies(values: Any) -> bool:
    return bool(np.ptp(values, axis=0).any())


def _finding(name: str, area: Figure, remedy: str) -> Finding:
    warning, fault = (CONTENT_WARNING, CONTENT_FAULT) if name == "8×8 thumbnail" else (FAULT, FAULT)
    state = "fault" if area["low"] > fault else "warning" if area["value"] > warning else "fine"
    return Finding(name, area, state, remedy)


def _told_by(values: NDArray[np.float64], labels: NDArray[np.int64], groups: NDArray[np.int64], seed: int) -> Figure:
    if not _varies(values):
        return {"value": 0.5, "low": 0.5, "high": 0.5}
    model = RandomForestClassifier(TREES, min_samples_leaf=5, max_features=0.3, random_state=seed, n_jobs=1)
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    scores = cross_val_predict(model, values, labels, groups=groups, cv=folds, method="predict_proba")[:, 1]
    return measure(labels, scores, groups=[str(group) for group in groups], bootstrap=200, seed=seed)["auc"]


def _features(path: Path) -> dict[str, list[float]]:
    """Return what the file says of itself, and the thumbnail, as numbers by name."""
    try:
        with Image.open(path) as picture:
            found = _metadata(picture, path.stat().st_size)
        thumbnail = read_picture(path).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX, reducing_gap=3)
    except (OSError, PictureError):
        raise DataError(f"{path}: can't be read any more; run prepare-faces again") from None
    return {**found, "8×8 thumbnail": [float(value) for value in np.asarray(thumbnail).ravel()]}


def _metadata(picture: Image.Image, size: int) -> dict[str, list[float]]:
    width, height = picture.size
    tables = getattr(picture, "quantization", None) or {}
    luminance = list(tables.get(0, []))
    chroma = list(tables.get(1, []))
    subsampling = JpegImagePlugin.get_sampling(picture) if picture.format == "JPEG" else -1
    exif = picture.getexif()
    return {
        "format": [_code(picture.format or ""), _code(picture.mode), float(bool(picture.info.get("progressive")))],
        "size": [float(width), float(height), width / height],
        "bytes a pixel": [size / (width * height)],
        "JPEG quantization": [float(sum(luminance)), float(sum(chroma)), _code(str(luminance)), _code(str(chroma))],
        "chroma subsampling": [float(subsampling)],
        "EXIF": [float(len(exif)), float("icc_profile" in picture.info), _code(str(exif.get(0x0110, "")))],
    }


def _code(text: str) -> float:
    """Return a number that is the same for the same text, for trees to split on."""
    value = 0
    for character in text:
        value = (value * 31 + ord(character)) % 9973
    return float(value)


def write_audit(path: Path, audit: Audit) -> None:
    """Write the audit as a report."""
    rows = [
        (finding.name, figure_text(finding.auc), finding.state, "" if finding.state == "fine" else finding.remedy)
        for finding in audit.findings
    ]
    said = [
        f"How well a cross-validated model tells real from fake without looking at a face, on {audit.faces} faces: AUC "
        "with its interval of 95 %; 0.5 is chance.",
        f"Metadata whose lower bound is over {FAULT} are a fault: a detector trained on these pictures may learn them "
        f"alone. The 8×8 thumbnail shows bias of content (backgrounds, framing, ages): a warning from "
        f"{CONTENT_WARNING}, a fault from {CONTENT_FAULT}.",
    ]
    verdict = "Fit for training." if not audit.faults else "Not fit for training: " + tell_faults(audit)
    table = Table(("what is looked at", "AUC", "state", "what to do"), rows)
    write_report(path, "Shortcut audit", [Section("Verdict", [verdict]), Section("Findings", [*said, table])])


def tell_faults(audit: Audit) -> str:
    """Return the faults in one line."""
    named = [finding for finding in audit.faults if finding.name != "all of it"] or list(audit.faults)
    return "; ".join(
        f"{finding.name} tells the classes apart (AUC {figure_text(finding.auc, 2)}): {finding.remedy}"
        for finding in named
    )
