"""Logits of networks under an instruction set: the one evaluation code, in a process that is capped to it."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_runtime.model.contract import ModelContract
from export.children.jobs import Workers
from train.data.build import Catalog, FaceRecord
from train.parallel import Advance


def measure_networks(
    workers: Workers,
    networks: Mapping[str, Path],
    contract: ModelContract,
    faces: Sequence[FaceRecord],
    *,
    isa: str,
    advance: Advance | None = None,
) -> dict[str, NDArray[np.float32]]:
    """Return the logits [N, 2] of each network on `faces`, by name, computed under `isa`."""
    with tempfile.TemporaryDirectory(prefix="deepfake-edge-") as folder:
        catalog, out = Path(folder) / "catalog.csv", Path(folder) / "logits.npz"
        Catalog(tuple(faces)).write(catalog)
        values = {
            "contract": contract.to_dict(),
            "catalog": str(catalog),
            "networks": {name: str(path.absolute()) for name, path in networks.items()},
            "out": str(out),
        }
        workers.run("measure", values, isa=isa, advance=advance)
        with np.load(out) as found:
            return {name: found[name] for name in networks}
