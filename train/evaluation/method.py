"""How the figures were measured, so that others can check them: command, versions, contents, computation."""

import hashlib
import shlex
import sys
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edge_runtime.command import package_versions
from edge_runtime.errors import BundleError, DataError
from edge_runtime.judging.results import iso_time
from edge_runtime.model.bundle import MANIFEST, sha256
from edge_runtime.pixels.file_types import SUFFIXES
from train.data.catalog import SEED
from train.evaluation.calibrate import CONFIDENCE
from train.evaluation.metrics import BINS, FEW_GROUPS, INTERVAL

SLICE_BOOTSTRAP = 200
"""Resamples for a slice or a row of the robustness grid, at most."""

PACKAGES = ("deepfake-edge", "numpy", "opencv-python-headless", "openvino", "pillow", "torch")


def method(model: Path, fingerprint: str, *, bootstrap: int, videos: bool = False) -> dict[str, Any]:
    """Return the method of an evaluation as plain values.

    Args:
        model: the checkpoint or bundle.
        fingerprint: of what was judged.
        bootstrap: resamples.
        videos: whether the bootstrap draws videos, and there are no slices.

    Raises:
        BundleError: the model can't be read.
    """
    (low, high), unit = INTERVAL, "videos" if videos else "groups of faces"
    return {
        "model_sha256": model_sha256(model),
        "data_fingerprint": fingerprint,
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "date": iso_time(datetime.now(timezone.utc)),
        "versions": package_versions(PACKAGES),
        "resamples": bootstrap,
        **({} if videos else {"resamples_of_slices_and_robustness": min(bootstrap, SLICE_BOOTSTRAP)}),
        "interval": f"percentiles {low} and {high} of a bootstrap that draws {unit}, seed {SEED}; where all resamples "
        f"are alike, as of a share of 0 or 1 and an AUC of 1, the bound that differs is Clopper and Pearson's for as "
        f"many {unit}, one-sided at {CONFIDENCE:.0%}; unknown with fewer than {FEW_GROUPS} {unit} of a class",
        "ece": f"{BINS} bins of equal width",
        "eer": "interpolated linearly between the two points of the ROC curve around it",
    }


def model_sha256(model: Path) -> str:
    """Return the SHA-256 of a checkpoint, or of a bundle's `model.json`, which holds those of all its other files.

    Raises:
        BundleError: it can't be read.
    """
    return sha256(model / MANIFEST if model.is_dir() else model)


def contents(path: Path) -> str:
    """Return the SHA-256 of a file, or those of the pictures in a folder in the order of their names.

    Raises:
        DataError: it can't be read.
    """
    try:
        files = [path]
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
        return " ".join(map(sha256, files))
    except (OSError, BundleError):
        raise DataError(f"{path}: can't be read, or was removed; put it back, or leave it out") from None


def contents_fingerprint(entries: Iterable[tuple[str, int]]) -> str:
    """Return a SHA-256 over `contents` and labels; names and order do not matter."""
    lines = sorted(f"{content} {label}\n" for content, label in entries)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
