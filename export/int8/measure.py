"""What networks answer on faces: jobs for a worker, which may be capped to an instruction set."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_runtime.inference.classifier import Classifier
from edge_runtime.model.contract import ModelContract
from edge_runtime.pixels.preprocess import face_pixels
from edge_runtime.pixels.quality import mean_light, measured_quality, shorter_side
from export.children.worker import Advance
from train.data.catalog import FaceRecord
from train.evaluation.logits import network_logits
from train.parallel import ordered_map


def measure_networks(
    networks: Mapping[str, Path],
    contract: ModelContract,
    faces: Sequence[FaceRecord],
    *,
    advance: Advance | None = None,
) -> dict[str, NDArray[np.float32]]:
    """Return the logits [N, 2] of each network on `faces`, by name."""
    return {name: network_logits(xml, contract, faces, progress=advance) for name, xml in networks.items()}


def measure_rows(
    networks: Mapping[str, Path], contract: ModelContract, faces: Sequence[FaceRecord], *, advance: Advance
) -> dict[str, NDArray[np.float32]]:
    """Return the logits and features [N, K, 2 + C] of each network on the K crops of `faces`, by name."""
    found = {}
    for name, xml in networks.items():
        classifier, rows = Classifier(xml, contract), []
        for crops in ordered_map(lambda face: face_pixels(face.read(), face.box, contract), faces):
            rows.append(classifier.rows(crops))
            advance(1)
        found[name] = np.stack(rows)
    return found


def measure_quality(contract: ModelContract, faces: Sequence[FaceRecord]) -> NDArray[np.float32]:
    """Return sharpness, blockiness, size and light of `faces`, [N, 4], as the runtime measures them."""

    def measured(face: FaceRecord) -> tuple[float, ...]:
        picture = face.read()
        pixels = face_pixels(picture, face.box, contract)[0]
        return (*measured_quality(pixels, shorter_side(picture.size, face.box)), mean_light(pixels))

    return np.array(list(ordered_map(measured, faces)), np.float32)
