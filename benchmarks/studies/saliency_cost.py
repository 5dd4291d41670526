"""Measures what saliency maps cost: a network with all outputs against the same network with its logits alone.

    python -m benchmarks.studies.saliency_cost BUNDLE

Both run in one process, one thread each, alternating. Figures are CPU time, which other load on the machine hardly
changes.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import openvino as ov
import typer

from board_setup.isa import current_cap
from edge_runtime.command import run_command
from edge_runtime.inference.classifier import build_network
from edge_runtime.inference.core import openvino_core
from edge_runtime.model.bundle import Bundle
from edge_runtime.model.contract import Precision
from export.convert.saliency import LOGITS

ALLOWED = 0.02
"""Up to this cost the map may be part of the network."""

FRAMES = 10
"""Frames of each network per pair."""


def saliency_cost(
    bundle: Annotated[Path, typer.Argument(help="A bundle whose networks give saliency maps.", show_default=False)],
    precision: Annotated[Precision, typer.Option(help="Which network.")] = Precision.INT8,
    rounds: Annotated[int, typer.Option(min=1, help="Number of figures behind the median and the spread.")] = 7,
    pairs: Annotated[int, typer.Option(min=1, help="Pairs of measurements per round.")] = 20,
) -> int:
    """Measure what the saliency map and the feature vector add to a network's CPU time; exit 1 above 2 %."""
    opened = Bundle.open(bundle)
    networks = [_step(opened, precision, explained=explained) for explained in (False, True)]
    found = [measured_cost(networks, pairs) for _ in range(rounds)]
    cost = statistics.median(found)
    print(
        f"{opened.contract.architecture} {precision.value}, {current_cap()}: saliency_map and feature_vector cost "
        f"{cost:+.2%} CPU time (rounds from {min(found):+.2%} to {max(found):+.2%}; {rounds} × {pairs} pairs of "
        f"{FRAMES} frames, one thread, f32)"
    )
    return int(cost > ALLOWED)


def _step(bundle: Bundle, precision: Precision, *, explained: bool) -> Callable[[], object]:
    """Return a function that infers one frame, with all outputs or with the logits alone."""
    core = openvino_core()
    network = build_network(core, bundle.model(precision), bundle.contract)
    if not explained:
        network = logits_alone(network)
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}
    request = core.compile_model(network, "CPU", settings).create_infer_request()
    side = bundle.contract.input_size
    frame = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), np.uint8)
    return lambda: request.infer([frame], share_inputs=True, share_outputs=True)


def logits_alone(network: ov.Model) -> ov.Model:
    """Return `network` with its logits as the only output."""
    return ov.Model([network.output(LOGITS)], network.get_parameters(), network.get_friendly_name())


def measured_cost(networks: Sequence[Callable[[], object]], pairs: int) -> float:
    """Return how much more CPU time the second network takes than the first, as a share: the median of pairs."""
    for step in networks:
        step()
    ratios = []
    for number in range(pairs):
        cpu_s = {}
        for which in (0, 1) if number % 2 else (1, 0):
            began = time.process_time()
            for _ in range(FRAMES):
                networks[which]()
            cpu_s[which] = time.process_time() - began
        ratios.append(cpu_s[1] / cpu_s[0])
    return statistics.median(ratios) - 1.0


if __name__ == "__main__":
    run_command(saliency_cost, "python -m benchmarks.studies.saliency_cost")
