"""Accuracy of a bundle's networks, each computed in a child process on its device and instruction set.

The scores come from `train.evaluation.logits`, as everywhere; here they are only set against FP32's.
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure.children import child_environment, run_child
from benchmarks.results.schema import Accuracy
from edge_runtime.errors import EdgeError
from edge_runtime.inference.classifier import Classifier
from edge_runtime.model.bundle import Bundle
from edge_runtime.model.contract import Calibration
from edge_runtime.model.golden import GOLDEN, check_golden
from train.data.build import Catalog, FaceRecord
from train.data.sample import pick_faces
from train.data.splits import group_faces
from train.evaluation.logits import bundle_logits
from train.evaluation.metrics import measure, paired_bootstrap

COMMAND = ("-m", "benchmarks.measure.accuracy")
RESAMPLES = 500
"""Of the bootstrap behind each interval."""

SHOWN = ("auc", "accuracy", "f1", "tpr_at_1_fpr", "tpr_at_5_fpr", "eer", "ece")


def choose_pictures(catalog: Catalog, count: int | None, seed: int = 42) -> tuple[FaceRecord, ...]:
    """Return `count` faces, half of them fake, or all, of the test split (valid or all where there is none)."""
    records = next((found for name in ("test", "valid") if (found := catalog.split(name))), catalog.records)
    return pick_faces(records, count, seed)


def network_answers(
    bundle: Path, precision: str, device: str, isa: str, catalog: Path
) -> tuple[NDArray[np.float32], str]:
    """Return the logits [N, 2] of every face of `catalog`, and how the golden pictures came out, from a child process.

    Raises:
        DeviceError: the child could not compute them.
    """
    job = {"bundle": str(bundle), "precision": precision, "device": device, "catalog": str(catalog)}
    result = run_child(job, COMMAND, child_environment(isa))
    return np.asarray(result["logits"], np.float32).reshape(-1, 2), result["golden"]


def scores(logits: NDArray[np.float32], reading: Calibration) -> NDArray[np.float64]:
    """Return the probability of fake [N] of logits [N, 2]."""
    return np.asarray([reading.score(float(fake - real)) for real, fake in logits])


def summarise(
    place: Accuracy,
    records: Sequence[FaceRecord],
    logits: NDArray[np.float32],
    reading: Calibration,
    reference: tuple[NDArray[np.float32], Calibration] | None,
) -> Accuracy:
    """Return `place` with its figures on `records`, and against `reference`, the logits and reading of FP32."""
    known = np.asarray(np.isfinite(logits).all(axis=1))
    if reference is not None:
        known &= np.isfinite(reference[0]).all(axis=1)
    judged = [record for record, fine in zip(records, known, strict=True) if fine]
    labels, groups = np.asarray([record.label for record in judged]), group_faces(judged)
    given = scores(logits[known], reading)
    found = measure(labels, given, threshold=reading.balanced, groups=groups, bootstrap=RESAMPLES)
    figures = {name: found[name] for name in SHOWN}
    values = {**vars(place), "pictures": int(known.sum()), "figures": figures}
    if reference is not None:
        values |= _against(labels, groups, given, reading, logits[known], (reference[0][known], reference[1]))
    return Accuracy(**values)


def _against(
    labels: NDArray[np.int64],
    groups: Sequence[str],
    given: NDArray[np.float64],
    reading: Calibration,
    logits: NDArray[np.float32],
    reference: tuple[NDArray[np.float32], Calibration],
) -> dict[str, Any]:
    before = scores(*reference)
    decided = (given >= reading.balanced) != (before >= reference[1].balanced)
    return {
        "auc_change": paired_bootstrap(labels, before, given, groups=groups, bootstrap=RESAMPLES),
        "changed": int(decided.sum()),
        "difference": float(np.abs(logits - reference[0]).max()),
    }


def main() -> int:
    """Compute a job's logits in this process and write them; a user's mistake is written as `error`."""
    job_path, result_path = (Path(argument) for argument in sys.argv[1:3])
    job = json.loads(job_path.read_text())
    try:
        bundle, records = Bundle.open(job["bundle"]), Catalog.read(job["catalog"]).records
        golden = golden_answer(bundle, job["precision"], job["device"])
        logits = bundle_logits(bundle, job["precision"], records, device=job["device"])
        result: dict[str, Any] = {"logits": logits.astype(float).tolist(), "golden": golden}
    except EdgeError as error:
        result = {"error": str(error)}
    result_path.write_text(json.dumps(result))
    sys.stdout.flush()
    os._exit(0)


def golden_answer(bundle: Bundle, precision: str, device: str) -> str:
    """Return `right` where the golden pictures come out as the bundle says, else what is wrong or missing."""
    if GOLDEN not in bundle.manifest.files:
        return "none in the bundle"
    network = Classifier(bundle.model(precision), bundle.contract, device=device)
    found = check_golden(network, bundle, precision, device)
    gap = f"logits within {found.difference:.2g}"
    return f"right ({gap})" if found.right else f"wrong ({gap}, allowed {found.tolerance:.2g})"


if __name__ == "__main__":
    main()
