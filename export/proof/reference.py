"""Fit a bundle's reference statistics: where the features of faces lie that its network was not trained on."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.model_selection import StratifiedGroupKFold

from edge_runtime.judging.decide import fake_scores
from edge_runtime.model.contract import Calibration, ModelContract, Verdict
from edge_runtime.model.reference import REFERENCE, Array, Reference, positions
from export.context import Context
from export.int8.measure import measure_rows
from train.data.splits import group_faces

AXES, AXES_BYTES = 32, 76_000
"""Most principal axes, and most bytes for these in half precision: the file stays under 100 KB."""

ENOUGH, FOLDS = 100, 5
"""The limit at 1 % needs 100 faces. It is taken from faces left out of the fit, a fold at a time."""

UNLIKE = 0.01
BINS = 20


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
    exact, outside = rows["fp32"][..., 2:], {name: np.zeros(len(faces), np.float32) for name in rows}
    for fitted, left in StratifiedGroupKFold(FOLDS).split(labels, labels, groups):
        part = fit(exact[fitted], labels[fitted], list(rows))
        for name, found in rows.items():
            outside[name][left] = distances(part, found[left, :, 2:], name)
    rank = math.ceil((len(faces) + 1) * (1 - UNLIKE)) - 1
    limits = {name: float(np.sort(found)[rank]) for name, found in outside.items()}
    # Half precision differs from single by far less than faces do.
    limits |= {"fp16": limits["fp32"]}
    reference = replace(fit(exact, labels, []), limits=limits)
    name = "int8" if "int8" in rows else "fp32"
    np.savez_compressed(
        folder / REFERENCE,
        mean=reference.mean,
        axes=reference.axes.astype(np.float16),
        whitening=reference.whitening,
        centres=reference.centres,
        precisions=list(limits),
        limits=list(limits.values()),
        **by_verdict(reference, rows[name], name, contract.calibration(name)),
    )
    return (
        f"A face is “unlike the faces it learned from” if its features are farther from those of {len(faces)} faces "
        f"that the model was not trained on than those of {UNLIKE:.0%} of these, each measured without its own fold."
    )


def fit(features: Array, labels: Sequence[int] | np.ndarray, precisions: Sequence[str]) -> Reference:
    """Fit the statistics to `features` [N, K, C] of N faces with K crops, with limits of 1 for `precisions`."""
    flat, labels = features.reshape(-1, features.shape[-1]), np.repeat(labels, features.shape[1])
    width = flat.shape[1]
    count = min(AXES, AXES_BYTES // (2 * width), len(features) // 8, width // 2)
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


def by_verdict(reference: Reference, rows: Array, name: str, calibration: Calibration) -> dict[str, Any]:
    """Describe faces by their verdict, for comparison with those of a camera: arrays to store, for precision `name`.

    `counts` [3], `means` [3, k + 1] and `covariances` [3, k + 1, k + 1] of the whitened positions, `histograms`
    [3, BINS] of the scores over [0, 1].
    """
    features = rows[..., 2:].mean(axis=1)
    places = positions(features, reference.mean, reference.axes) @ reference.whitening
    scores = fake_scores(rows[..., :2].mean(axis=1), calibration)
    unlike = distances(reference, rows[..., 2:], name) > 1
    verdicts = np.where(unlike, Verdict.UNCERTAIN.value, [calibration.verdict(score).value for score in scores])
    size, members = places.shape[1], [verdicts == verdict.value for verdict in Verdict]
    return {
        "described": name,
        "verdicts": [verdict.value for verdict in Verdict],
        "counts": [own.sum() for own in members],
        "means": np.stack([places[own].mean(axis=0) if own.any() else np.zeros(size) for own in members]),
        "covariances": np.stack(
            [np.cov(places[own], rowvar=False) if own.sum() > 1 else np.zeros((size, size)) for own in members]
        ).astype(np.float16),
        "histograms": np.stack([np.histogram(scores[own], BINS, (0, 1))[0] for own in members]),
    }
