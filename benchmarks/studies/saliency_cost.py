"""What saliency maps cost: a network with all its outputs against the same network with its logits alone.

    python -m benchmarks.studies.saliency_cost BUNDLE

Both are compiled in one process, one thread each, and asked in turn; the figures are the process's own CPU time, so
that others on the machine count little.
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
"""Up to here the map may lie in the network itself."""

FRAMES = 10
"""Frames of each network in one pair."""


def main() -> None:
    """Start the command."""
    run_command(saliency_cost, "saliency_cost")


def saliency_cost(
    bundle: Annotated[Path, typer.Argument(help="A bundle whose networks give saliency maps.", show_default=False)],
    precision: Annotated[Precision, typer.Option(help="Which network.")] = Precision.INT8,
    rounds: Annotated[int, typer.Option(min=1, help="Figures of which the median and the spread are told.")] = 7,
    pairs: Annotated[int, typer.Option(min=1, help="Pairs of measurements in a round.")] = 20,
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
    """Return what computes one frame, with all outputs or with the logits alone."""
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
    """Return how much more CPU time the second takes than the first, as a share: the median of pairs, in turn."""
    for step in networks:
        step()
    ratios = []
    for number in range(pairs):
        turn = (0, 1) if number % 2 else (1, 0)
        took = {which: _cpu_seconds(networks[which]) for which in turn}
        ratios.append(took[1] / took[0])
    return statistics.median(ratios) - 1.0


def _cpu_seconds(step: Callable[[], object]) -> float:
    began = time.process_time()
    for _ in range(FRAMES):
        step()
    return time.process_time() - began


if __name__ == "__main__":
    main()
