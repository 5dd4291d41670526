"""A whole export of the tiny network, and the parts of the way."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import openvino as ov
import pytest

from board_setup.isa import BOARD
from edge_runtime.detector import Detector
from edge_runtime.inference.classifier import Classifier
from edge_runtime.inference.core import openvino_core
from edge_runtime.inference.faces import FACE_MODEL
from edge_runtime.model.bundle import Bundle
from edge_runtime.model.contract import (
    CHECKPOINT,
    Calibration,
    ModelContract,
    PixelRecipe,
    Precision,
    QualityGroup,
)
from edge_runtime.model.golden import check_golden
from edge_runtime.pixels.pictures import read_picture
from edge_runtime.pixels.preprocess import face_pixels
from export.context import Context, Steps
from export.export import calibrate, export_bundle, prove
from export.faces import choose_faces
from export.int8.gate import Reading
from export.int8.search import Int8Choice
from export.options import ExportOptions, allowed_errors
from export.proof.certificate import certify
from train.data.catalog import Catalog
from train.data.face_finder import installed_face_model
from train.evaluation.calibrate import fit_calibration
from train.evaluation.logits import face_qualities
from train.evaluation.training_faces import among, bundle_faces, face_mark


def test_the_bundle_holds_what_it_lists_and_nothing_else(tiny_bundle: Bundle) -> None:
    tiny_bundle.check()
    assert tiny_bundle.precisions == (Precision.FP32, Precision.FP16, Precision.INT8)
    files = {path.relative_to(tiny_bundle.path).as_posix() for path in tiny_bundle.path.rglob("*") if path.is_file()}
    assert files == {"model.json", *tiny_bundle.manifest.files}
    assert {"onnx/model.onnx", "report.html", "report.md", "golden/golden.json"} <= files
    assert tiny_bundle.file(FACE_MODEL).read_bytes() == installed_face_model().read_bytes()
    assert "Apache License" in tiny_bundle.file("face/NOTICE").read_text(encoding="utf-8")
    text = (tiny_bundle.path / "model.json").read_text(encoding="utf-8")
    assert tiny_bundle.manifest.to_json() == text
    assert tiny_bundle.manifest.trained_on == {"sources": ["drawn"], "generators": ["pencil"]}
    json.loads(text, parse_constant=pytest.fail)


@pytest.mark.parametrize(("precision", "kind"), [("fp32", "f32"), ("fp16", "f16"), ("int8", "i8")])
def test_weights_are_stored_in_their_precision(tiny_bundle: Bundle, precision: str, kind: str) -> None:
    operations = openvino_core().read_model(tiny_bundle.model(precision)).get_ops()
    constants = [op for op in operations if op.get_type_name() == "Constant"]
    weights = [
        op for op in constants if len(op.get_output_shape(0)) == 4 and op.get_output_size() and op.data.size > 99
    ]
    assert {op.get_element_type().get_type_name() for op in weights} == {kind}
    assert (precision == "fp16") == any(op.get_element_type() == ov.Type.f16 for op in constants)


def test_each_ir_is_plain_and_carries_the_contract(tiny_bundle: Bundle) -> None:
    for precision in tiny_bundle.precisions:
        model = openvino_core().read_model(tiny_bundle.model(precision))
        assert model.input(0).get_element_type() == ov.Type.f32
        assert list(model.input(0).shape) == [1, 3, 32, 32]
        assert [next(iter(output.names)) for output in model.outputs] == ["logits", "saliency_map", "feature_vector"]
        expected = tiny_bundle.contract.to_rt_info()
        assert {key: model.get_rt_info(["model_info", key]).value for key in expected} == expected


def test_the_onnx_is_one_file_with_a_dynamic_batch(tiny_bundle: Bundle) -> None:
    path = tiny_bundle.path / "onnx/model.onnx"
    onnx.checker.check_model(str(path), full_check=True)
    assert not list(path.parent.glob("*.data"))
    assert onnx.load(path).graph.input[0].type.tensor_type.shape.dim[0].dim_param
    assert str(Path(__file__).parents[2]).encode() not in path.read_bytes(), "it names paths of this machine"


def test_the_certificate_goes_from_pytorch_to_the_board(tiny_bundle: Bundle, quick: ExportOptions) -> None:
    certificate = tiny_bundle.manifest.parity["certificate"]
    stages = {stage["name"]: stage for stage in certificate["stages"]}
    assert list(stages) == ["PyTorch", "ONNX", "FP32", "FP32 on the board", "FP16", "INT8", "INT8 on the board"]
    assert certificate["spread"] > 1
    for name in ("ONNX", "FP32", "FP32 on the board"):
        assert stages[name]["from_pytorch"]["max_logit"] <= 1e-3
        assert stages[name]["from_pytorch"]["changed"] == 0
        assert stages[name]["from_pytorch"]["faces"] == quick.parity_faces
    assert stages["FP16"]["from_pytorch"]["max_logit"] > 0
    assert stages["INT8 on the board"]["from_before"]["max_logit"] <= 1e-5


@pytest.mark.slow
def test_int8_and_fp16_alone_make_a_bundle(
    tiny_checkpoint: Path, tiny_data: Path, quick: ExportOptions, tmp_path: Path
) -> None:
    options = replace(quick, parts=("fp16", "int8"))
    bundle = export_bundle(tiny_checkpoint, tiny_data, tmp_path / "b", options=options)
    assert bundle.precisions == (Precision.FP16, Precision.INT8)
    assert not (bundle.path / "fp32").exists()
    assert not (bundle.path / "onnx").exists()
    assert Detector(bundle, faces="off").choice.precision is Precision.INT8
    assert check_golden(Classifier(bundle.model("fp16"), bundle.contract), bundle, "fp16").right


def test_every_auc_of_the_certificate_is_of_the_same_faces() -> None:
    labels = [0, 1] * 20
    margin = np.where(labels, 1.0, -1.0)
    margin[10:] *= -1
    logits = np.stack([-margin / 2, margin / 2], axis=1).astype(np.float32)
    measured = {("torch", "native"): logits[:10], ("fp32", "native"): logits, ("fp32", BOARD): logits}
    stages = certify(measured, labels, Reading(Calibration())).stages
    assert [stage.auc for stage in stages] == [1.0, 1.0, 1.0]
    assert [stage.faces for stage in stages] == [10, 40, 40]
    assert [stage.from_before.faces for stage in stages[1:]] == [10, 40]


def test_every_precision_is_calibrated_and_measured(tiny_bundle: Bundle) -> None:
    readings = [tiny_bundle.contract.calibration(precision.value) for precision in tiny_bundle.precisions]
    assert all(reading.fitted for reading in readings)
    assert readings[0].temperature != readings[2].temperature
    assert {(reading.max_fpr, reading.max_fnr) for reading in readings} == {(0.04, 0.2)}
    assert tiny_bundle.contract.metrics["int8"]["auc"]["value"] > 0.9


def test_faces_of_the_training_are_listed_and_not_measured(
    tiny_bundle: Bundle, tiny_data: Path, trained_faces: Catalog, quick: ExportOptions
) -> None:
    marks = {face_mark(face) for face in trained_faces.records}
    assert bundle_faces(tiny_bundle) == marks
    faces = choose_faces(
        tiny_data, calibration=quick.calibration_faces, measured=quick.measured_faces, seed=quick.seed, trained=marks
    )
    assert tiny_bundle.manifest.parity["certificate"]["faces"] == len(faces.measured)
    assert not among(marks, faces.measured)


def test_int8_is_calibrated_as_the_board_computes(tiny_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("export.export.measure", lambda labels, scores, **options: options)
    faces = choose_faces(tiny_data, calibration=2, measured=40)
    margin = np.where(faces.labels, 1.0, -1.0) + np.random.default_rng(0).normal(0, 1, 40)
    logits = np.stack([-margin / 2, margin / 2], 1).astype(np.float32)
    measured = {("int8", "native"): logits * 3 + 1, ("int8", BOARD): logits}
    found = calibrate(ModelContract("tiny"), measured, faces, None, {})
    assert found.calibration("int8") == fit_calibration(logits, faces.labels)
    assert found.metrics["int8"] == {"threshold": found.calibration("int8").balanced, "groups": faces.groups}


def test_the_gate_reads_logits_as_fp32_ships(tiny_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contract = ModelContract("tiny", input_size=32, pixels=PixelRecipe(resize_to=None))
    faces = choose_faces(tiny_data, calibration=2, measured=40)
    qualities = face_qualities(faces.measured, contract)
    limit = float(np.median(qualities[:, 0]))
    groups = (QualityGroup(limit, None, None, 1.0, 2.0), QualityGroup(None, None, None, 1.0, 0.0))
    contract = contract.replace(calibrations={CHECKPOINT: Calibration(groups=groups)})
    margin = np.where(faces.labels, 1.0, -1.0) + np.random.default_rng(0).normal(0, 1, 40)
    logits = np.stack([-margin / 2, margin / 2], 1).astype(np.float32)
    measured = {("torch", "native"): logits, ("fp32", "native"): logits, ("fp32", BOARD): logits}
    readings: list[Reading] = []
    monkeypatch.setattr("export.export.measure_floats", lambda *given: measured)
    monkeypatch.setattr("export.export.find_int8", lambda *given: readings.append(given[-1]) or Int8Choice())
    context = Context(contract, faces, ExportOptions(), workers=None, steps=Steps(), work=tiny_data)
    proof = prove(None, {"fp32": tiny_data}, context)
    assert readings[0].calibration == proof.contract.calibration("fp32")
    assert readings[0].calibration.balanced != fit_calibration(logits, faces.labels).balanced
    assert np.array_equal(readings[0].qualities, qualities)
    assert proof.certificate.stages[0].auc == pytest.approx(proof.contract.metrics["fp32"]["auc"]["value"])


@pytest.mark.parametrize(
    ("asked", "kept"), [({}, (0.001, 0.2)), ({"max_fpr": 0.05}, (0.05, 0.2)), ({"max_fnr": 0.0}, (0.001, 0.0))]
)
def test_allowed_errors_come_from_options_then_training(asked: dict[str, float], kept: tuple[float, float]) -> None:
    contract = ModelContract("tiny", calibrations={CHECKPOINT: Calibration(max_fpr=0.001, max_fnr=0.2)})
    assert tuple(allowed_errors(contract, ExportOptions(**asked)).values()) == kept


def test_the_report_shows_every_stage_candidate_and_tool(tiny_bundle: Bundle) -> None:
    parity, tools = tiny_bundle.manifest.parity, tiny_bundle.manifest.tools
    assert {"torch", "onnx", "openvino", "nncf", "python"} <= set(tools)
    assert "unknown" not in tools.values()
    names = [entry["name"] for entry in (*parity["certificate"]["stages"], *parity["candidates"])]
    for suffix in ("md", "html"):
        text = (tiny_bundle.path / f"report.{suffix}").read_text(encoding="utf-8")
        assert all(name in text for name in (*names, *tools))


def test_the_saliency_branch_leaves_int8_logits_alone(tiny_bundle: Bundle) -> None:
    # Its operations are not quantized, so that a map and its logits agree: the map's mean is the logit.
    model = openvino_core().read_model(tiny_bundle.model("int8"))
    compiled = openvino_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled(np.random.default_rng(0).normal(size=(1, 3, 32, 32)).astype(np.float32))
    mean = found["saliency_map"].mean((2, 3))
    np.testing.assert_allclose(mean - mean.mean(), found["logits"] - found["logits"].mean(), atol=0.2)


def test_the_runtime_classifies_with_it(tiny_bundle: Bundle, tiny_data: Path) -> None:
    paths = [tiny_data / name / "07.png" for name in ("real", "fake")]
    pixels = np.concatenate([face_pixels(read_picture(path), None, tiny_bundle.contract) for path in paths])
    logits = Classifier(tiny_bundle.model("int8"), tiny_bundle.contract).logits(pixels)
    assert logits.argmax(axis=1).tolist() == [0, 1]
    assert Detector(tiny_bundle.path, faces="off").detect(paths[1]).error is None
