"""How figures came about, so that others can check them: command, versions, contents, and how each is computed."""

import hashlib
import shlex
import sys
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edge_runtime.command import package_versions
from edge_runtime.judging.results import iso_time
from edge_runtime.model.bundle import MANIFEST, sha256
from train.data.catalog import SEED
from train.evaluation.metrics import BINS, INTERVAL

PACKAGES = ("deepfake-edge", "numpy", "opencv-python-headless", "openvino", "pillow", "torch")


def method(model: Path, fingerprint: str, *, unit: str, bootstrap: int) -> dict[str, Any]:
    """Return the method of an evaluation as plain values.

    Args:
        model: the checkpoint or bundle.
        fingerprint: of what was judged.
        unit: what the bootstrap draws, such as `videos`.
        bootstrap: resamples.

    Raises:
        BundleError: the model can't be read.
    """
    low, high = INTERVAL
    return {
        "model_sha256": model_sha256(model),
        "data_fingerprint": fingerprint,
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "date": iso_time(datetime.now(timezone.utc)),
        "versions": package_versions(PACKAGES),
        "resamples": bootstrap,
        "interval": f"percentiles {low} and {high} of a bootstrap that draws {unit}, seed {SEED}",
        "ece": f"{BINS} bins of equal width",
        "eer": "interpolated linearly between the two points of the ROC curve around it",
    }


def model_sha256(model: Path) -> str:
    """Return the SHA-256 of a checkpoint, or of a bundle's `model.json`, which holds those of all its other files.

    Raises:
        BundleError: it can't be read.
    """
    return sha256(model / MANIFEST if model.is_dir() else model)


def contents_fingerprint(entries: Iterable[tuple[Path, int]]) -> str:
    """Return a SHA-256 over contents and labels of files and of folders of files; their names do not matter.

    Raises:
        BundleError: a file can't be read.
    """
    lines = []
    for path, label in entries:
        files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
        lines.append(f"{' '.join(sha256(file) for file in files)} {label}\n")
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()
