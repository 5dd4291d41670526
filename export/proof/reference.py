"""Fit a bundle's reference statistics: where the features of faces lie that its network was not trained on."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from sklearn.decomposition import PCA
from sklearn.model_selection import StratifiedGroupKFold

from edge_runtime.judging.results import FaceTraits
from edge_runtime.model.contract import Calibration, ModelContract, Verdict
from edge_runtime.model.reference import REFERENCE, Array, Reference, positions
from edge_runtime.monitoring.baseline import Baseline
from edge_runtime.monitoring.summary import UNLIKE as UNLIKE_KIND
from edge_runtime.monitoring.summary import Summary
from export.context import Context
from export.int8.measure import measure_quality, measure_rows
from train.data.splits import group_faces

AXES, AXES_BYTES = 32, 76_000
"""Most principal axes, and most bytes for these in half precision: the file stays under 100 KB."""

ENOUGH, FOLDS = 100, 5
"""The limit at 1 % needs 100 faces. It is taken from faces left out of the fit, a fold at a time."""

UNLIKE = 0.01


def write_reference(folder: Path, networks: Mapping[str, Path], contract: ModelContract, context: Context) -> str:
    """Write the statistics for `networks`, by precision and with FP32 among them; return what the report says.

    `contract` has the calibrations. With too few faces nothing is written.
    """
    faces = context.faces.familiar
    labels, groups = np.array([face.label for face in faces], int), np.array(group_faces(faces))
    if len(faces) < ENOUGH or any(len(set(groups[labels == label])) < FOLDS for label in (0, 1)):
        return (
            f"Only {len(faces)} faces that the model was not trained on ({ENOUGH} are needed, of {FOLDS} persons a "
            "class): the bundle can't tell faces unlike those it learned from."
        )
    with context.steps.step("Features measured", len(faces) * len(networks)) as advance:
        rows = context.workers.run(measure_rows, networks, contract, faces, advance=advance)
    quality = context.workers.run(measure_quality, contract, faces)
    exact, outside = rows["fp32"][..., 2:], {name: np.zeros(len(faces), np.float32) for name in rows}
    whole, name = fit(exact, labels, []), "int8" if "int8" in rows else "fp32"
    places = np.empty((len(faces), len(whole.whitening)), np.float32)
    for fitted, left in StratifiedGroupKFold(FOLDS).split(labels, labels, groups):
        part = fit(exact[fitted], labels[fitted], list(rows), count=whole.axes.shape[1])
        for kind, found in rows.items():
            outside[kind][left] = distances(part, found[left, :, 2:], kind)
        places[left] = unseen_positions(rows[name][left, :, 2:], part, whole)
    rank = math.ceil((len(faces) + 1) * (1 - UNLIKE)) - 1
    limits = {name: float(np.sort(found)[rank]) for name, found in outside.items()}
    # Half precision differs from single by far less than faces do.
    limits |= {"fp16": limits["fp32"]}
    reference = replace(whole, limits=limits)
    margins = rows[name][..., 1].mean(axis=1) - rows[name][..., 0].mean(axis=1)
    unlike = outside[name] > limits[name]
    baseline = describe(places, margins, quality, unlike, labels, contract.calibration(name))
    np.savez_compressed(
        folder / REFERENCE,
        mean=reference.mean,
        axes=reference.axes.astype(np.float16),
        whitening=reference.whitening,
        centres=reference.centres,
        precisions=list(limits),
        limits=list(limits.values()),
        described=name,
        **baseline.to_arrays(),
    )
    return (
        f"A face is “unlike the faces it learned from” if its features are farther from those of {len(faces)} faces "
        f"that the model was not trained on than those of {UNLIKE:.0%} of these, each measured without its own fold."
    )


def fit(
    features: Array, labels: Sequence[int] | np.ndarray, precisions: Sequence[str], count: int | None = None
) -> Reference:
    """Fit the statistics to `features` [N, K, C] of N faces with K crops, with limits of 1 for `precisions`.

    `count` is the number of axes; None takes as many as the faces and the file's size allow.
    """
    flat, labels = features.reshape(-1, features.shape[-1]), np.repeat(labels, features.shape[1])
    width = flat.shape[1]
    count = count or min(AXES, AXES_BYTES // (2 * width), len(features) // 8, width // 2)
    pca = PCA(count, svd_solver="randomized", random_state=0).fit(flat)
    # In half precision, as the file stores them.
    mean, axes = pca.mean_.astype(np.float32), pca.components_.T.astype(np.float16).astype(np.float32)
    places = positions(flat, mean, axes).astype(np.float64)
    centres = np.stack([places[labels == label].mean(axis=0) for label in (0, 1)])
    covariance = np.cov(places - centres[labels], rowvar=False, ddof=2)
    covariance += 1e-6 * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    whitening = np.linalg.inv(np.linalg.cholesky(covariance)).T
    arrays = (mean, axes, whitening.astype(np.float32), (centres @ whitening).astype(np.float32))
    return Reference(*arrays, limits=dict.fromkeys(precisions, 1.0))


def distances(reference: Reference, features: Array, precision: str) -> Array:
    """Return the distance of each face, the mean over its crops, [N] from `features` [N, K, C]."""
    found = reference.distances(features.reshape(-1, features.shape[-1]), precision)
    return np.asarray(found.reshape(features.shape[:2]).mean(axis=1))


def unseen_positions(features: Array, part: Reference, whole: Reference) -> Array:
    """Return the whitened positions [N, k + 1] of `features` [N, K, C] of faces that `part` was not fitted to.

    Faces that the axes were fitted to lie closer to these than new ones do: a camera's faces would seem to drift. So
    they are measured along the axes of `part`, which are then turned onto those of `whole` (Procrustes).
    """
    left, _, right = np.linalg.svd(part.axes.T @ whole.axes)
    turned = (part.axes @ (left @ right)).astype(np.float32)
    found = positions(features.reshape(-1, features.shape[-1]), whole.mean, turned) @ whole.whitening
    return np.asarray(found.reshape(*features.shape[:2], -1).mean(axis=1))


def describe(
    places: Array, margins: Array, quality: Array, unlike: np.ndarray, labels: np.ndarray, calibration: Calibration
) -> Baseline:
    """Judge N faces as the board does, and summarize them for its monitor.

    Args:
        places: their whitened positions, [N, d].
        margins: logits of fake minus those of real, [N].
        quality: sharpness, blockiness, size and light, [N, 4].
        unlike: which are unlike the faces that the network learned, [N].
        labels: 0 is real, 1 fake, [N].
        calibration: how to read the logits.
    """
    summary, uncertain = Summary(places.shape[1]), np.zeros(2, np.int64)
    for place, margin, row, strange, label in zip(places, margins, quality, unlike, labels, strict=True):
        sharpness, blockiness, size, light = map(float, row)
        score = calibration.score(calibration.adjusted(float(margin), (sharpness, blockiness, size)))
        kind = UNLIKE_KIND if strange else calibration.verdict(score).value
        traits = FaceTraits(place, size=size, sharpness=sharpness, blockiness=blockiness, light=light)
        summary.add(traits, kind, score)
        uncertain[label] += kind in (UNLIKE_KIND, Verdict.UNCERTAIN.value)
    return Baseline.describe(summary, uncertain, np.bincount(labels, minlength=2))
