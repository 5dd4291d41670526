"""What every step of one export works with, and how it shows its progress."""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from board_setup.isa import BOARD
from edge_runtime.model.contract import ModelContract
from export.children.process import Workers
from export.faces import ExportFaces
from export.int8.gate import Logits
from export.int8.measure import measure_networks
from export.options import PARTS, ExportOptions
from train.data.catalog import Quarantined, left_out_lines
from train.parallel import Advance, progress_bar


class Steps:
    """An export's steps on standard error: a bar where there is a terminal, then a line; silent without `show`."""

    def __init__(self, *, show: bool = False) -> None:
        self.show, self.started = show, time.monotonic()
        self.broken = False
        """Whether any picture could not be read."""

    @contextmanager
    def step(self, title: str, total: int = 0) -> Iterator[Advance]:
        """Run a block as a step of `total` parts; the block calls what it gets with the number just finished."""
        if not self.show:
            yield lambda count: None
            return
        started = time.monotonic()
        with progress_bar(title, total or 1) as advance:
            yield advance
        self.note(f"{title} … {time.monotonic() - started:.1f} s")

    def note(self, text: str) -> None:
        """Show a sentence."""
        if self.show:
            print(text, file=sys.stderr, flush=True)

    def left_out(self, files: Sequence[Quarantined]) -> None:
        """Show which pictures could not be used: the first few."""
        self.broken = any(file.broken for file in files)
        for line in left_out_lines([(file.path, file.reason) for file in files]):
            self.note(line)


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
