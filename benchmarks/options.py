"""The options of `edge-benchmark`, written once: typer reads them here, and everything else gets this object."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.measure.cases import MAX_AUC_LOSS, UNLIMITED_FRAMES, TimingLimits

_timing, _choice = (functools.partial(typer.Option, rich_help_panel=panel) for panel in ("Measuring", "Choosing"))


@dataclass(frozen=True)
class Options:
    """What `edge-benchmark` was asked to do."""

    data: Annotated[Path, typer.Option(help="Labelled faces: catalog.csv, or a folder with real/ and fake/.")]
    out: Annotated[Path, typer.Option(help="Folder for report.html, report.md, report.json and the plots.")]
    model: Annotated[
        list[Path] | None,
        typer.Option(help="Bundle; several to compare backbones (default: the one that edge-detect finds)."),
    ] = None
    checkpoint: Annotated[
        list[Path] | None, typer.Option(help="The .pth that a bundle was exported from, to measure PyTorch too.")
    ] = None
    isa: Annotated[list[str] | None, _timing(help="Cap measurements to native, avx2 or sse42; several to compare.")] = (
        None
    )
    rounds: Annotated[int, _timing(min=1, help="Rounds, in which each case is measured once.")] = 5
    seconds: Annotated[float, _timing(min=0.05, help="Seconds per timing; a round has two.")] = 2.0
    frames: Annotated[int, _timing(min=1, help="Maximum frames per timing; use few on a very slow machine.")] = (
        UNLIMITED_FRAMES
    )
    pictures: Annotated[int | None, typer.Option(min=2, help="Faces for accuracy (default: the whole test split).")] = (
        None
    )
    tune: Annotated[bool, _choice("--tune", help="Find the fastest setting and save it for edge-detect.")] = False
    target_fps: Annotated[
        float | None, _choice(min=0.1, help="With --tune: prefer accuracy among settings this fast.")
    ] = None
    max_auc_loss: Annotated[float, _choice(min=0.0, help="AUC that a recommended network may lose against FP32.")] = (
        MAX_AUC_LOSS
    )
    minutes: Annotated[
        float | None, _timing(min=0.01, help="Then run the best case this long; with --tune, the time limit.")
    ] = None
    baselines: Annotated[bool, _timing(help="Measure PyTorch, ONNX Runtime and benchmark_app too.")] = True
    delay: Annotated[
        float, _timing(min=0.0, max=10.0, hidden=True, help="Slow every frame by this share of its own time.")
    ] = 0.0

    @property
    def isas(self) -> tuple[str, ...]:
        """The instruction sets to measure, without duplicates."""
        return tuple(dict.fromkeys(self.isa or ["native"]))

    @property
    def limits(self) -> TimingLimits:
        """How long each timing takes."""
        return TimingLimits(
            seconds=self.seconds,
            frames=self.frames,
            warmup_frames=min(self.frames, TimingLimits.warmup_frames),
            delay=self.delay,
        )
