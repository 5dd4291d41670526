"""Accuracy of a bundle's networks, each computed in a worker process on its device and instruction set.

The logits come from `train.evaluation.logits`, as everywhere; this module compares them with FP32's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from benchmarks.results.schema import Accuracy, GoldenState
from edge_runtime.inference.classifier import Classifier
from edge_runtime.model.bundle import Bundle
from edge_runtime.model.contract import Calibration
from edge_runtime.model.golden import GOLDEN, check_golden
from train.data.catalog import SEED, Catalog, FaceRecord
from train.data.sample import pick_faces
from train.data.splits import group_faces
from train.evaluation.calibrate import log_odds
from train.evaluation.logits import bundle_logits
from train.evaluation.metrics import measure, paired_bootstrap

RESAMPLES = 500
"""Bootstrap samples behind each interval."""

SHOWN = ("auc", "accuracy", "f1", "tpr_at_1_fpr", "tpr_at_5_fpr", "eer", "ece")


@dataclass(frozen=True)
class Judgement:
    """Logits [N, 2] of a network and the calibration that turns them into scores, as the runtime does.

    `qualities` are the faces' sharpness, blockiness and size [N, 3]; None for a calibration without groups.
    """

    logits: NDArray[np.float32]
    calibration: Calibration
    qualities: NDArray[np.float64] | None = None

    @property
    def known(self) -> NDArray[np.bool_]:
        """Mask [N] of the faces with finite logits; unreadable pictures have none."""
        return np.asarray(np.isfinite(self.logits).all(axis=1))

    def of(self, faces: NDArray[np.bool_]) -> "Judgement":
        """Return the judgement of the faces in the mask [N]."""
        qualities = None if self.qualities is None else self.qualities[faces]
        return replace(self, logits=self.logits[faces], qualities=qualities)

    def scores(self) -> NDArray[np.float64]:
        """Return the probabilities of fake [N]."""
        return np.asarray(expit(log_odds(self.logits, self.calibration, self.qualities)))

    def decisions(self) -> NDArray[np.bool_]:
        """Return whether each face [N] is called fake at the balanced threshold."""
        return np.asarray(self.scores() >= self.calibration.balanced)


def choose_test_faces(catalog: Catalog, count: int | None, seed: int = SEED) -> tuple[FaceRecord, ...]:
    """Return `count` faces, half of them fake, or all (None) of the test split; of valid or all if that is empty."""
    records = next((found for name in ("test", "valid") if (found := catalog.split(name))), catalog.records)
    return pick_faces(records, count, seed)


def judge_network(network: Accuracy, bundle: Path, catalog: Path) -> tuple[NDArray[np.float32], Accuracy]:
    """Return the logits [N, 2] of every face in `catalog`, and `network` with the result of its golden pictures."""
    opened, records = Bundle.open(bundle), Catalog.read(catalog).records
    if GOLDEN in opened.manifest.files:
        classifier = Classifier(opened.model(network.precision), opened.contract, device=network.device)
        found = check_golden(classifier, opened, network.precision, network.device)
        network = replace(
            network,
            golden=GoldenState.RIGHT if found.right else GoldenState.WRONG,
            golden_difference=found.difference,
            golden_tolerance=found.tolerance,
        )
    return bundle_logits(opened, network.precision, records, device=network.device), network


def summarize(
    network: Accuracy, records: Sequence[FaceRecord], judged: Judgement, reference: Judgement | None
) -> Accuracy:
    """Return `network` with its metrics on `records`, and its differences from FP32's judgement `reference`."""
    known = judged.known if reference is None else judged.known & reference.known
    judged = judged.of(known)
    faces = [record for record, fine in zip(records, known, strict=True) if fine]
    labels, groups, scores = np.asarray([face.label for face in faces]), group_faces(faces), judged.scores()
    found = measure(labels, scores, threshold=judged.calibration.balanced, groups=groups, bootstrap=RESAMPLES)
    network = replace(network, pictures=len(faces), figures={name: found[name] for name in SHOWN})
    if reference is None:
        return network
    reference = reference.of(known)
    return replace(
        network,
        auc_change=paired_bootstrap(labels, reference.scores(), scores, groups=groups, bootstrap=RESAMPLES),
        changed=int((judged.decisions() != reference.decisions()).sum()),
        difference=float(np.abs(judged.logits - reference.logits).max()),
    )
