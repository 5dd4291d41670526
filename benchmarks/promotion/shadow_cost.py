"""What a shadow detector costs: frames/s from file to verdict with and without one, measured in turn.

    python -m benchmarks.promotion.shadow_cost detector/ next/ faces/

Set ONEDNN_MAX_CPU_ISA=SSE41 and OV_CPU_MAX_ISA=SSE41 to compute as the board does.
"""

import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.engines.runtime import RepeatedPictures
from benchmarks.measure.cases import TimingLimits
from benchmarks.measure.plan import picture_files
from benchmarks.measure.timing import Clock
from edge_runtime.command import run_command
from edge_runtime.detector import Detector
from edge_runtime.model.bundle import Bundle
from edge_runtime.review.shadow import Shadow
from edge_runtime.sinks.shadow import ShadowSink
from export.children.scratch import ScratchFolder
from train.data.build import load_data

PICTURES = 64


def rate(detector: Detector, shadow: Bundle | None, pictures: Sequence[str], seconds: float) -> tuple[float, int]:
    """Return the frames/s of `detector` on `pictures`, and how many faces the shadow compared meanwhile."""
    with tempfile.TemporaryDirectory() as folder:
        sink = ShadowSink(Path(folder) / "disagreements.jsonl", Shadow(shadow)) if shadow else None
        clock = Clock(TimingLimits(seconds=seconds))
        latencies = []
        for judged in detector.pipeline([RepeatedPictures(pictures, clock)]).results():
            latencies.append(judged.result.latency_ms / 1000.0)
            if sink:
                sink.write(judged)
        found = clock.stop(latencies).fps
        if sink:
            sink.close()
        return found, sink.counts.compared if sink else 0


def shadow_cost(
    model: Annotated[Path, typer.Argument(help="The bundle in use.")],
    shadow: Annotated[Path, typer.Argument(help="The bundle of the shadow.")],
    data: Annotated[Path, typer.Argument(help="Faces: a catalog.csv, or a folder with real/ and fake/.")],
    rounds: Annotated[int, typer.Option(min=1, help="How often each is measured.")] = 7,
    seconds: Annotated[float, typer.Option(min=0.5, help="Seconds of each timing.")] = 5.0,
) -> int:
    """Print the rate with and without a shadow, and their ratio."""
    detector = Detector(model, device="CPU", faces="off")
    scratch = ScratchFolder()
    pictures = picture_files(load_data(data).records[:PICTURES], scratch.path)
    second = Bundle.open(shadow)
    rate(detector, second, pictures, 1.0)
    pairs, compared = [], 0
    for number in range(rounds):
        # The first of two is at a disadvantage where the machine gets slower or faster.
        order = (None, second) if number % 2 else (second, None)
        found = {}
        for bundle in order:
            found[bundle is not None], faces = rate(detector, bundle, pictures, seconds)
            compared += faces
        pairs.append((found[False], found[True]))
        print(f"round {number + 1}: {found[False]:.1f} frames/s alone, {found[True]:.1f} with the shadow", flush=True)
    ratios = [with_it / alone for alone, with_it in pairs]
    print(
        f"median ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}); the shadow compared "
        f"{compared / (rounds * seconds):.2f} faces/s"
    )
    return 0


if __name__ == "__main__":
    run_command(shadow_cost, "python -m benchmarks.promotion.shadow_cost")
