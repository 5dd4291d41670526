"""Which INT8 candidates are tried, and which one ships."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from board_setup.isa import BOARD
from edge_runtime.model.bundle import Bundle
from edge_runtime.model.contract import Calibration
from export.context import Context, Steps
from export.faces import choose_faces
from export.int8.gate import Criterion, Reading
from export.int8.measure import measure_networks
from export.int8.quantize import Int8Candidate, LayerNoise, quantize, sensitive_layers
from export.int8.search import Int8Choice, find_int8
from export.options import ExportOptions

FIRST, SECOND, FALLBACK = Int8Candidate("PERFORMANCE"), Int8Candidate("MIXED"), Int8Candidate("MIXED", "DISABLE")


class ScriptedWorkers:
    """Answers jobs at once: to quantize copies `network`; a candidate gets as many faces wrong as `wrong` says."""

    def __init__(self, network: Path, wrong: dict[str, int]) -> None:
        self.network, self.wrong = network, wrong
        self.quantized: list[tuple[tuple, str]] = []
        self.measured: list[tuple] = []

    def run(self, job: Callable, *given: object, isa: str = "native", advance: object = None) -> object:
        if job is quantize:
            self.quantized.append((given, isa))
            shutil.copytree(self.network.parent, given[1].parent)
        if job is measure_networks:
            networks, _, faces = given
            self.measured.append(faces)
            return {name: logits(faces, self.wrong.get(name.removeprefix("INT8 "), 0)) for name in networks}
        if job is sensitive_layers:
            return [LayerNoise("body.0", 0.5)]
        return None

    @property
    def tried(self) -> list[str]:
        return [given[2].name for given, _ in self.quantized]


def logits(faces: tuple, wrong: int = 0) -> np.ndarray:
    margin = np.array([2.0 if face.label else -2.0 for face in faces])
    margin[:wrong] *= -1
    return np.stack([-margin / 2, margin / 2], axis=1).astype(np.float32)


@pytest.fixture
def search(tiny_bundle: Bundle, tiny_data: Path, tmp_path: Path) -> Callable[..., tuple[Int8Choice, ScriptedWorkers]]:
    faces = choose_faces(tiny_data, calibration=12, measured=20)

    def search(
        wrong: dict[str, int], *, network: str = "int8", **options: object
    ) -> tuple[Int8Choice, ScriptedWorkers]:
        workers = ScriptedWorkers(tiny_bundle.model(network), wrong)
        given = replace(
            ExportOptions(candidates=(FIRST, SECOND), fallbacks=(FALLBACK,), accuracy_control=False), **options
        )
        context = Context(
            contract=tiny_bundle.contract, faces=faces, options=given, workers=workers, steps=Steps(), work=tmp_path
        )
        found = find_int8(context, tiny_bundle.model("fp32"), logits(faces.measured), Reading(Calibration()))
        assert all(measured == faces.measured for measured in workers.measured)
        assert all(given[4] == faces.calibration for given, _ in workers.quantized)
        return found, workers

    return search


@pytest.mark.parametrize(
    ("wrong", "tried", "chosen"),
    [([FIRST], [FIRST, SECOND], SECOND), ([FIRST, SECOND], [FIRST, SECOND, FALLBACK], FALLBACK)],
)
def test_the_best_ships_and_fallbacks_come_last(search: Callable, wrong: list, tried: list, chosen: object) -> None:
    choice, workers = search({candidate.name: 5 for candidate in wrong})
    assert workers.tried == [candidate.name for candidate in tried]
    assert choice.chosen.candidate == chosen
    assert not choice.failure
    assert set(choice.chosen.logits) == {"native", BOARD}


def test_accuracy_control_starts_from_the_closest_candidate(search: Callable) -> None:
    wrong = {FIRST.name: 5, SECOND.name: 3, FALLBACK.name: 9}
    choice, workers = search(wrong, accuracy_control=True)
    assert choice.chosen.candidate == replace(SECOND, control=True)
    given, isa = workers.quantized[-1]
    assert isa == BOARD
    assert given[5].faces == workers.measured[0]
    assert len(choice.results) == 4
    assert "accuracy control" in choice.notes[0]


def test_when_none_is_accepted_the_sensitive_layers_are_named(search: Callable) -> None:
    choice, _ = search({FIRST.name: 5, SECOND.name: 3, FALLBACK.name: 9})
    assert choice.chosen is None
    assert f"the most sensitive layers in {SECOND.name}: body.0 (+50.0%)" in choice.failure
    assert choice.notes == (choice.failure,)


def test_a_network_without_an_int8_layer_is_refused(search: Callable) -> None:
    choice, _ = search({}, network="fp32")
    assert choice.chosen is None
    assert all(result.refusals[-1].criterion is Criterion.NO_INT8 for result in choice.results)
