"""The search for an INT8 network that the gate accepts."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from board_setup.isa import BOARD
from export.context import Context
from export.int8.gate import Criterion, GateResult, LimitMetric, Logits, Reading, best, closest, judge_candidate
from export.int8.quantize import Control, Int8Candidate, layers_in_int8, quantize, sensitive_layers


@dataclass(frozen=True)
class Attempt:
    """A candidate that was quantized, measured and judged; `logits` are by instruction set."""

    candidate: Int8Candidate
    network: Path
    logits: Mapping[str, Logits]
    result: GateResult


@dataclass(frozen=True)
class Int8Choice:
    """The search's outcome: the results in the order of trial, and what ships, or why nothing does.

    `notes` is what the report says about the search.
    """

    results: tuple[GateResult, ...] = ()
    chosen: Attempt | None = None
    failure: str = ""
    notes: tuple[str, ...] = ()


def find_int8(context: Context, fp32: Path, fp32_board: Logits, reading: Reading) -> Int8Choice:
    """Try the candidates, then the fallbacks, then accuracy control, until the gate accepts one.

    `fp32_board` are the logits [N, 2] of the network `fp32` under the board's instruction set; `reading` says how they
    are read.
    """
    attempts: dict[str, Attempt] = {}
    notes: list[str] = []

    def results() -> list[GateResult]:
        return [attempt.result for attempt in attempts.values()]

    def try_all(*candidates: Int8Candidate) -> None:
        attempts.update({each.name: _attempt(context, each, fp32, fp32_board, reading) for each in candidates})

    try_all(*context.options.candidates)
    if not best(results()):
        try_all(*context.options.fallbacks)
    if not best(results()) and context.options.accuracy_control:
        notes.append("No candidate was accepted: accuracy control returns layers to floating point (slow).")
        context.steps.note(notes[-1])
        try_all(replace(attempts[closest(results()).name].candidate, control=True))
    if chosen := best(results()):
        return Int8Choice(tuple(results()), attempts[chosen.name], notes=tuple(notes))
    nearest = attempts[closest(results()).name]
    with context.steps.step("Layers compared"):
        given = (fp32, nearest.network, context.contract, context.faces.calibration)
        worst = context.workers.run(sensitive_layers, *given, isa=BOARD)
    refused = "; ".join(f"{result.name}: {', '.join(map(str, result.refusals))}" for result in results())
    layers = ", ".join(f"{noise.layer} (+{noise.added:.1%})" for noise in worst)
    failure = (
        f"no INT8 network stays within the limits on the board ({refused}); "
        f"the most sensitive layers in {nearest.candidate.name}: {layers}"
    )
    return Int8Choice(tuple(results()), None, failure, (*notes, failure))


def _attempt(context: Context, candidate: Int8Candidate, fp32: Path, fp32_board: Logits, reading: Reading) -> Attempt:
    faces, limits = context.faces, context.options.limits
    network = context.work / candidate.name.replace(" ", "_") / "model.xml"
    control, isa = None, "native"
    if candidate.control:
        isa = BOARD
        control = Control(faces.measured, fp32_board, LimitMetric(faces.labels, fp32_board, reading, limits))
    with context.steps.step(f"INT8 {candidate.name} quantized", len(faces.calibration)) as advance:
        given = (fp32, network, candidate, context.contract, faces.calibration, control)
        context.workers.run(quantize, *given, isa=isa, advance=advance)
    title = f"INT8 {candidate.name}"
    logits = {isa: context.measure({title: network}, isa)[title] for isa in ("native", BOARD)}
    result = judge_candidate(
        candidate.name,
        labels=faces.labels,
        groups=faces.groups,
        fp32_board=fp32_board,
        native=logits["native"],
        board=logits[BOARD],
        reading=reading,
        limits=limits,
    )
    if not layers_in_int8(network):
        # Accuracy control may end there: a good network, but it is FP32 under another name.
        result = result.refuse(Criterion.NO_INT8)
    return Attempt(candidate, network, logits, result)
