"""Which layers become INT8, and accuracy control."""

from pathlib import Path

import numpy as np
import pytest

from edge_runtime.inference.classifier import Classifier
from edge_runtime.inference.core import openvino_core
from edge_runtime.model.bundle import Bundle
from export.faces import ExportFaces, choose_faces
from export.int8.quantize import (
    METRIC_DROP,
    Control,
    Int8Candidate,
    beside_the_logits,
    last_layer,
    layers_in_int8,
    quantize,
    sensitive_layers,
)
from export.options import named_candidates
from train.evaluation.logits import judge


@pytest.fixture(scope="module")
def faces(tiny_data: Path) -> ExportFaces:
    return choose_faces(tiny_data, calibration=12, measured=12)


def test_the_head_and_the_saliency_branch_stay_in_floating_point(tiny_bundle: Bundle) -> None:
    model = openvino_core().read_model(tiny_bundle.model("fp32"))
    assert beside_the_logits(model)
    assert last_layer(model) not in beside_the_logits(model)
    quantized = openvino_core().read_model(tiny_bundle.model("int8"))
    operations = {op.get_friendly_name(): op for op in quantized.get_ordered_ops()}
    head = operations[last_layer(quantized)]
    assert all(given.get_source_output().get_node().get_type_name() != "FakeQuantize" for given in head.inputs())
    assert layers_in_int8(tiny_bundle.model("int8")) == 3
    assert layers_in_int8(tiny_bundle.model("fp32")) == 0


def test_accuracy_control_gives_back_only_the_worst_layers(
    tiny_bundle: Bundle, faces: ExportFaces, tmp_path: Path
) -> None:
    fp32, plain, contract = tiny_bundle.model("fp32"), tiny_bundle.model("int8"), tiny_bundle.contract
    exact = judge(Classifier(fp32, contract).logits, contract, faces.measured)

    def farthest(xml: Path) -> float:
        return float(np.abs(judge(Classifier(xml, contract).logits, contract, faces.measured) - exact).max())

    def quantizers(xml: Path) -> int:
        return sum(op.get_type_name() == "FakeQuantize" for op in openvino_core().read_model(xml).get_ops())

    allowed = 0.5 * farthest(plain)

    def half_as_far(logits: np.ndarray) -> float:
        return 1.0 - METRIC_DROP * float(np.abs(logits - exact).max()) / allowed

    out, steps = tmp_path / "model.xml", list[int]()
    control = Control(faces.measured, exact, half_as_far)
    quantize(fp32, out, Int8Candidate(control=True), contract, faces.calibration, control, advance=steps.append)
    assert sum(steps) == len(faces.calibration)
    assert 0 < quantizers(out) < quantizers(plain)
    assert farthest(out) <= allowed


def test_sensitive_layers_are_named_as_in_pytorch(tiny_bundle: Bundle, faces: ExportFaces) -> None:
    networks = (tiny_bundle.model("fp32"), tiny_bundle.model("int8"))
    worst = sensitive_layers(*networks, tiny_bundle.contract, faces.calibration)
    assert {found.layer for found in worst} == {"body.0", "body.3", "body.6"}
    assert [found.added for found in worst] == sorted((found.added for found in worst), reverse=True)
    assert worst[0].added > 0


def test_a_histogram_gives_other_ranges(tiny_bundle: Bundle, faces: ExportFaces, tmp_path: Path) -> None:
    (candidate,), fallbacks = named_candidates("performance-enable-histogram")
    assert (candidate.histogram, candidate.name, fallbacks) == (True, "PERFORMANCE ENABLE HISTOGRAM", ())
    fp32, contract, out = tiny_bundle.model("fp32"), tiny_bundle.contract, tmp_path / "model.xml"
    quantize(fp32, out, candidate, contract, faces.calibration)
    assert layers_in_int8(out) == 3
    networks = [Classifier(path, contract) for path in (fp32, out, tiny_bundle.model("int8"))]
    exact, found, plain = (judge(network.logits, contract, faces.measured) for network in networks)
    assert 0 < np.abs(found - plain).max() < 1
    assert np.abs(found - exact).max() < 1
