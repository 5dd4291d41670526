"""Logits of a checkpoint or a bundle on the faces of a catalog. Every measurement of a detector starts here.

Torch is imported only for checkpoints.
"""

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_runtime.errors import DataError, PictureError
from edge_runtime.inference.classifier import Classifier
from edge_runtime.model.bundle import Bundle
from edge_runtime.model.contract import Calibration, ModelContract, Precision
from edge_runtime.pixels.preprocess import face_pixels
from edge_runtime.pixels.quality import measured_quality, shorter_side
from train.data.catalog import FaceRecord
from train.parallel import Advance, ordered_map

Logits = NDArray[np.float32]
Corrupt = Callable[[Image.Image, FaceRecord], Image.Image]
"""Changes a picture before it is judged; the size stays."""

PixelsToLogits = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""From uint8 pixels [N, H, W, 3] to logits [N, 2]."""

BATCH = 32


class PictureGoneError(DataError):
    """A picture of a catalog can no longer be read."""


def read_again(record: FaceRecord) -> Image.Image:
    """Read a picture of a catalog.

    Raises:
        PictureGoneError: it can no longer be read.
    """
    try:
        return record.read()
    except PictureError as error:
        raise PictureGoneError(
            f"{error}; it was readable when the catalog was made: restore it and run the command again, or run "
            "prepare-faces again and train from the start"
        ) from None


def require_logits(records: Sequence[FaceRecord], logits: Logits) -> None:
    """Check that each of `records` was judged.

    Raises:
        PictureGoneError: a picture can no longer be read.
        DataError: a logit is NaN or infinite.
    """
    for record, answer in zip(records, logits, strict=True):
        if not np.isfinite(answer).all():
            read_again(record)
            raise DataError(f"{record.path}: the network's logits are NaN or infinite; train again with a lower --lr")


def network_logits(
    xml: Path | str,
    contract: ModelContract,
    records: Sequence[FaceRecord],
    *,
    device: str = "CPU",
    progress: Advance | None = None,
    corrupt: Corrupt | None = None,
) -> Logits:
    """Return the logits [N, 2] of an OpenVINO network, averaged over crops; NaN where a picture can't be read."""
    classifier = Classifier(Path(xml), contract, device=device)
    return judge(classifier.logits, contract, records, progress=progress, corrupt=corrupt)


def bundle_logits(
    bundle: Bundle,
    precision: Precision | str,
    records: Sequence[FaceRecord],
    *,
    device: str = "CPU",
    progress: Advance | None = None,
    corrupt: Corrupt | None = None,
) -> Logits:
    """Return the logits [N, 2] of a bundle's network of `precision`; NaN where a picture can't be read."""
    path = bundle.model(precision)
    return network_logits(path, bundle.contract, records, device=device, progress=progress, corrupt=corrupt)


def checkpoint_logits(
    path: Path | str,
    records: Sequence[FaceRecord],
    *,
    progress: Advance | None = None,
    corrupt: Corrupt | None = None,
) -> Logits:
    """Return the logits [N, 2] of a checkpoint, computed in float32; NaN where a picture can't be read."""
    from train.models.checkpoint import load_checkpoint, load_model
    from train.models.network import torch_logits

    checkpoint = load_checkpoint(path)
    network = torch_logits(load_model(checkpoint), checkpoint.contract)
    return judge(network, checkpoint.contract, records, progress=progress, corrupt=corrupt)


def face_qualities(
    records: Sequence[FaceRecord], contract: ModelContract, corrupt: Corrupt | None = None
) -> NDArray[np.float64]:
    """Return sharpness, blockiness and size of each face [N, 3], as the runtime measures them; NaN if unreadable."""

    def quality(record: FaceRecord) -> tuple[float, float, float]:
        try:
            picture = record.read()
        except PictureError:
            return (np.nan, np.nan, np.nan)
        crops = face_pixels(corrupt(picture, record) if corrupt else picture, record.box, contract)
        return measured_quality(crops[0], shorter_side(picture.size, record.box))

    return np.array(list(ordered_map(quality, records))).reshape(-1, 3)


def adjust(
    logits: Logits,
    records: Sequence[FaceRecord],
    contract: ModelContract,
    calibration: Calibration,
    corrupt: Corrupt | None = None,
) -> Logits:
    """Return the logits [N, 2] of `records` as the runtime reads them: rescaled by the group of each face's quality."""
    if not calibration.groups:
        return logits
    qualities = face_qualities(records, contract, corrupt)
    margins = [calibration.adjusted(float(m), q) for m, q in zip(logits[:, 1] - logits[:, 0], qualities, strict=True)]
    return np.column_stack([logits[:, 0], logits[:, 0] + np.array(margins)]).astype(np.float32)


def judge(
    network: PixelsToLogits,
    contract: ModelContract,
    records: Sequence[FaceRecord],
    *,
    progress: Advance | None = None,
    corrupt: Corrupt | None = None,
) -> Logits:
    """Return the logits [N, 2] of `network` on `records`, averaged over crops; NaN where a picture can't be read."""

    def pixels(record: FaceRecord) -> NDArray[np.uint8] | None:
        try:
            picture = record.read()
        except PictureError:
            return None
        return face_pixels(corrupt(picture, record) if corrupt else picture, record.box, contract)

    results = np.full((len(records), 2), np.nan, np.float32)
    crops = ordered_map(pixels, records)
    for start in range(0, len(records), BATCH):
        batch = list(islice(crops, BATCH))
        read = [index for index, found in enumerate(batch) if found is not None]
        if read:
            stacked = np.concatenate([found for found in batch if found is not None])
            results[[start + index for index in read]] = network(stacked).reshape(len(read), -1, 2).mean(axis=1)
        if progress:
            progress(len(batch))
    return results
