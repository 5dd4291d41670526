"""Logits of a checkpoint or a bundle on the faces of a catalog: the one way to measure a detector.

Torch is imported when a checkpoint is asked for, and not before.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_runtime.errors import DataError, PictureError
from edge_runtime.inference.classifier import Classifier
from edge_runtime.model.bundle import Bundle
from edge_runtime.model.contract import ModelContract, Precision
from edge_runtime.pixels.pictures import read_picture
from edge_runtime.pixels.preprocess import face_pixels
from train.data.build import FaceRecord
from train.parallel import Advance, ordered_map

Logits = NDArray[np.float32]
Corrupt = Callable[[Image.Image, FaceRecord], Image.Image]
"""Changes a picture before it is judged, keeping its size."""

PixelsToLogits = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""From uint8 [N, H, W, 3] to logits [N, 2]."""

BATCH = 32


class PictureGoneError(DataError):
    """A picture of a catalog can't be read any more."""


def read_again(record: FaceRecord) -> Image.Image:
    """Read a picture that was fine when the catalog was made.

    Raises:
        PictureGoneError: it can't be read any more.
    """
    try:
        return read_picture(record.path)
    except PictureError as error:
        raise PictureGoneError(
            f"{error}; it was fine when the catalog was made: put it back and say the same again, "
            "or run prepare-faces again and train anew"
        ) from None


def require_logits(records: Sequence[FaceRecord], logits: Logits) -> None:
    """Check that each of `records` was judged.

    Raises:
        PictureGoneError: a picture can't be read any more.
        DataError: the network's answer is no number.
    """
    for record, answer in zip(records, logits, strict=True):
        if not np.isfinite(answer).all():
            read_again(record)
            raise DataError(f"{record.path}: the network's answer is no number; train anew with a lower --lr")


def network_logits(
    xml: Path | str,
    contract: ModelContract,
    records: Sequence[FaceRecord],
    *,
    device: str = "CPU",
    progress: Advance | None = None,
    corrupt: Corrupt | None = None,
) -> Logits:
    """Return the logits [N, 2] of an OpenVINO network, crops averaged; nan where a picture can't be read."""
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
    """Return the logits [N, 2] of a bundle's network of `precision`; nan where a picture can't be read."""
    path = bundle.model(precision)
    return network_logits(path, bundle.contract, records, device=device, progress=progress, corrupt=corrupt)


def checkpoint_logits(
    path: Path | str,
    records: Sequence[FaceRecord],
    *,
    progress: Advance | None = None,
    corrupt: Corrupt | None = None,
) -> Logits:
    """Return the logits [N, 2] of a checkpoint, computed in float32; nan where a picture can't be read."""
    from train.models.checkpoint import load_checkpoint, load_model
    from train.models.network import torch_logits

    checkpoint = load_checkpoint(path)
    network = torch_logits(load_model(checkpoint), checkpoint.contract)
    return judge(network, checkpoint.contract, records, progress=progress, corrupt=corrupt)


def judge(
    network: PixelsToLogits,
    contract: ModelContract,
    records: Sequence[FaceRecord],
    *,
    progress: Advance | None = None,
    corrupt: Corrupt | None = None,
) -> Logits:
    """Return the logits [N, 2] of `network` on `records`, crops averaged; nan where a picture can't be read."""
    results = np.full((len(records), 2), np.nan, np.float32)

    def pixels(record: FaceRecord) -> NDArray[np.uint8] | None:
        return _pixels(record, contract, corrupt)

    for start, batch in _batches(ordered_map(pixels, records)):
        read = [index for index, crops in enumerate(batch) if crops is not None]
        if read:
            stacked = np.concatenate([crops for crops in batch if crops is not None])
            logits = network(stacked).reshape(len(read), -1, 2).mean(axis=1)
            results[[start + index for index in read]] = logits
        if progress:
            progress(len(batch))
    return results


def _pixels(record: FaceRecord, contract: ModelContract, corrupt: Corrupt | None) -> NDArray[np.uint8] | None:
    try:
        picture = read_picture(record.path)
    except PictureError:
        return None
    return face_pixels(corrupt(picture, record) if corrupt else picture, record.box, contract)


def _batches(
    items: Iterator[NDArray[np.uint8] | None],
) -> Iterator[tuple[int, list[NDArray[np.uint8] | None]]]:
    start, batch = 0, []
    for item in items:
        batch.append(item)
        if len(batch) == BATCH:
            yield start, batch
            start, batch = start + len(batch), []
    if batch:
        yield start, batch


def fake_scores(logits: Logits, temperature: float = 1.0) -> NDArray[np.float64]:
    """Return the probabilities of fake for logits [N, 2]."""
    from train.evaluation.calibrate import probabilities

    return probabilities((logits[:, 1] - logits[:, 0]).astype(np.float64), temperature)
