"""Logits of networks on faces: a job for a worker that is capped to an instruction set."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_runtime.model.contract import ModelContract
from export.children.worker import Advance
from train.data.catalog import FaceRecord
from train.evaluation.logits import network_logits


def measure_networks(
    networks: Mapping[str, Path],
    contract: ModelContract,
    faces: Sequence[FaceRecord],
    *,
    advance: Advance | None = None,
) -> dict[str, NDArray[np.float32]]:
    """Return the logits [N, 2] of each network on `faces`, by name."""
    return {name: network_logits(xml, contract, faces, progress=advance) for name, xml in networks.items()}
