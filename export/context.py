"""What every step of one export works with."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from board_setup.isa import BOARD
from edge_runtime.model.contract import ModelContract
from export.children.process import Workers
from export.faces import ExportFaces
from export.int8.gate import Logits
from export.int8.measure import measure_networks
from export.options import PARTS, ExportOptions
from export.progress import Steps


@dataclass(frozen=True)
class Context:
    """What every step of one export works with; `contract` is not calibrated yet, `work` is for intermediate files."""

    contract: ModelContract
    faces: ExportFaces
    options: ExportOptions
    workers: Workers
    steps: Steps
    work: Path

    def measure(self, networks: Mapping[str, Path], isa: str) -> dict[str, Logits]:
        """Return the logits [N, 2] of each network on the measured faces, by name, computed under `isa`."""
        where = "as the board computes" if isa == BOARD else "on this CPU"
        faces = self.faces.measured
        names = " and ".join(name.upper() if name in PARTS else name for name in networks)
        with self.steps.step(f"{names} measured {where}", len(faces)) as advance:
            return self.workers.run(measure_networks, networks, self.contract, faces, isa=isa, advance=advance)
