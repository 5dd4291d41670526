"""The export as a whole: from a checkpoint to a bundle that proves what it holds."""

import dataclasses
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from board_setup.isa import BOARD
from edge_runtime.errors import GateError, UsageError
from edge_runtime.model.bundle import Bundle
from edge_runtime.model.contract import CHECKPOINT, Calibration, ModelContract, Precision
from edge_runtime.model.golden import GOLDEN, Golden
from export.bundle.atomic import check_target, folder_in_one_step
from export.bundle.files import HOW_TO_GET, add_face_model, tool_versions, write_manifest
from export.children.process import Workers, start_workers
from export.convert.onnx import OnnxNetwork, read_source, to_onnx
from export.convert.openvino import save_network, to_openvino, write_contract
from export.convert.saliency import OUTPUTS, explain
from export.faces import ExportFaces, choose_faces, draw_faces
from export.int8.gate import LimitMetric, Limits, Tried, best, judge_candidate, plain, scores
from export.int8.measure import measure_networks
from export.int8.quantize import CALIBRATION_FACES, Candidate, Control, layers_in_int8, layers_that_hurt, quantize
from export.progress import Silent, Steps
from export.proof.certificate import Certificate, certify
from export.proof.golden import draw_golden, measure_golden
from export.proof.report import write_export_report
from train.evaluation.calibrate import fit_calibration
from train.evaluation.logits import judge
from train.evaluation.metrics import measure
from train.evaluation.seen import checkpoint_faces, write_training_faces
from train.models.backbones import find_backbone
from train.models.checkpoint import Checkpoint, load_model
from train.models.network import torch_logits

Logits = NDArray[np.float32]

ONNX = "onnx"
SALIENCY_PART = "saliency"
PARTS = (*(precision.value for precision in Precision), ONNX)

CANDIDATES = (Candidate("PERFORMANCE", "ENABLE"), Candidate("MIXED", "ENABLE"))
"""What is tried unless said otherwise: with the overflow fix in all layers, which held on the board (docs/int8.md)."""

FALLBACKS = (Candidate("PERFORMANCE", "FIRST_LAYER"), Candidate("MIXED", "FIRST_LAYER"))
"""What is tried where none of these holds: finer weights, at the risk of sums that saturate on the board."""

ALL_CANDIDATES = tuple(
    Candidate(preset, overflow)
    for preset in ("PERFORMANCE", "MIXED")
    for overflow in ("ENABLE", "FIRST_LAYER", "DISABLE")
)


@dataclass(frozen=True)
class Options:
    """How an export is made.

    Attributes:
        parts: which of PARTS the bundle holds.
        name: what the bundle is called.
        version: the model's; empty keeps the checkpoint's.
        candidates: what is tried for INT8, in this order.
        fallbacks: what is tried where none of them holds.
        accuracy_control: whether layers are given back to floating point where no candidate holds; takes long.
        limits: what INT8 may change.
        calibration_faces: at most so many calibrate.
        measured_faces: at most so many are measured.
        parity_faces: of the measured ones, so many go through PyTorch and ONNX Runtime too.
        seed: of the choice of faces.
        max_fpr: share of real faces that may be called fake; None keeps the checkpoint's.
        max_fnr: share of fakes that may be called real; None keeps the checkpoint's.
        face_model: the face detector's file; None takes the installed package's.
        replace: whether a bundle that is there already is replaced.
    """

    parts: Sequence[str] = PARTS
    name: str = "detector"
    version: str = ""
    candidates: Sequence[Candidate] = CANDIDATES
    fallbacks: Sequence[Candidate] = FALLBACKS
    accuracy_control: bool = True
    limits: Limits = field(default_factory=Limits)
    calibration_faces: int = CALIBRATION_FACES
    measured_faces: int = 300
    parity_faces: int = 100
    seed: int = 42
    max_fpr: float | None = None
    max_fnr: float | None = None
    face_model: Path | None = None
    replace: bool = False


def export_bundle(
    checkpoint: Checkpoint | Path | str,
    calibration: Path | str | None,
    out: Path | str,
    *,
    options: Options | None = None,
    steps: Steps | None = None,
) -> Bundle:
    """Export a checkpoint as a bundle at `out`.

    Args:
        checkpoint: one that was read, or its file.
        calibration: a catalog or a folder with real/ and fake/; None takes the checkpoint's catalog, and without one
            FP32 and FP16 alone are exported, uncalibrated.
        out: the bundle's folder.
        options: how.
        steps: told how far it is.

    Raises:
        GateError: no INT8 network held; the bundle is there with the other precisions.
        CheckpointError, DataError, UsageError: something given can't be used; nothing was written.
    """
    options, steps, target = options or Options(), steps or Silent(), Path(out).expanduser()
    check_target(target, replace=options.replace)
    source = checkpoint if isinstance(checkpoint, Checkpoint) else read_source(Path(checkpoint).expanduser())
    data = calibration or source.catalog or None
    try:
        with folder_in_one_step(target) as folder, start_workers() as workers:
            failed = _Export(source, options, steps, workers, folder).run(Path(data) if data else None)
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"{target}: can't be written ({reason}); make room, or choose another --out") from error
    if failed:
        raise GateError(f"{failed}; {target} holds the other precisions and no INT8")
    return Bundle.open(target)


class _Export:
    """One export, step by step; what is measured is kept by network and instruction set."""

    def __init__(self, source: Checkpoint, options: Options, steps: Steps, workers: Workers, folder: Path) -> None:
        self.options, self.steps, self.workers, self.folder = options, steps, workers, folder
        self.work = folder / ".work"
        self.work.mkdir()
        self.contract = source.contract
        if options.version:
            self.contract = self.contract.replace(version=options.version)
        self.allowed = allowed_errors(self.contract, options)
        self.trained = checkpoint_faces(source)
        self.model = load_model(source)
        self.networks: dict[str, Path] = {}
        self.found: dict[tuple[str, str], Logits] = {}
        self.tried: list[Tried] = []
        self.chosen = ""
        self.notes: list[str] = []

    def run(self, data: Path | None) -> str:
        """Write the bundle into its folder; return why there is no INT8, empty where there is or none was asked for."""
        faces = self.choose_faces(data) if data else draw_faces(self.work / "drawn")
        self.convert()
        self.measure_floats(faces)
        failed = ""
        if faces.calibration:
            reading = fit_calibration(self.found["fp32", BOARD], faces.labels, **self.allowed)
            if Precision.INT8.value in self.options.parts:
                failed = self.quantize(faces, reading)
            self.calibrate(faces)
            certificate = certify(self.found, faces.labels, reading)
        else:
            self.note(
                "Uncalibrated: exported without labelled faces, so there is no INT8, and 0.5 divides real from fake."
            )
            certificate = certify(self.found, None, Calibration())
        self.collect(certificate)
        return failed

    def note(self, text: str) -> None:
        """Tell something now, and in the report."""
        self.notes.append(text)
        self.steps.note(text)

    def convert(self) -> None:
        """PyTorch to ONNX to FP32 and FP16."""
        explained = explain(self.model, find_backbone(self.contract.architecture))
        self.onnx = self.work / ONNX / "model.onnx"
        self.onnx.parent.mkdir()
        with self.steps.step("ONNX written and checked"):
            to_onnx(explained.network, self.contract, self.onnx, explained.outputs)
        with self.steps.step("FP32 and FP16 converted"):
            network = to_openvino(self.onnx, self.contract)
            for name in ("fp32", "fp16"):
                self.networks[name] = self.work / name / "model.xml"
                save_network(network, self.networks[name], half=name == "fp16")
        if explained.apart:
            with self.steps.step("Saliency network converted"):
                apart = self.work / "apart.onnx"
                to_onnx(explained.apart, self.contract, apart, OUTPUTS)
                self.networks[SALIENCY_PART] = self.work / SALIENCY_PART / "model.xml"
                save_network(to_openvino(apart, self.contract), self.networks[SALIENCY_PART], half=True)

    def choose_faces(self, data: Path) -> ExportFaces:
        """Choose what calibrates and what is measured."""
        options = self.options
        with self.steps.step("Faces read"):
            faces = choose_faces(
                data,
                calibration=options.calibration_faces,
                measured=options.measured_faces,
                seed=options.seed,
                trained=self.trained,
            )
        # By name on the terminal alone: a bundle goes where the paths of this machine are nobody's business.
        self.steps.left_out(faces.left_out)
        for text in faces.notes:
            self.note(text)
        return faces

    def measure_floats(self, faces: ExportFaces) -> None:
        """Measure PyTorch, ONNX, FP32 and FP16, and FP32 as the board computes it."""
        few = faces.measured[: self.options.parity_faces]
        with self.steps.step("PyTorch measured", len(few)) as advance:
            network = torch_logits(self.model, self.contract)
            self.found["torch", "native"] = judge(network, self.contract, few, progress=advance)
        with self.steps.step("ONNX measured", len(few)) as advance:
            runtime = OnnxNetwork(self.onnx, self.contract)
            self.found[ONNX, "native"] = judge(runtime, self.contract, few, progress=advance)
        self.measure(("fp32", "fp16"), faces, "native")
        self.measure(("fp32",), faces, BOARD)

    def measure(self, names: Sequence[str], faces: ExportFaces, isa: str) -> None:
        """Measure networks under an instruction set."""
        where = "as the board computes" if isa == BOARD else "on this CPU"
        with self.steps.step(f"{' and '.join(_title(n) for n in names)} measured {where}", len(faces.measured)) as told:
            networks = {name: self.networks[name] for name in names}
            found = self.workers.run(measure_networks, networks, self.contract, faces.measured, isa=isa, advance=told)
        for name, logits in found.items():
            self.found[name, isa] = logits

    def quantize(self, faces: ExportFaces, reading: Calibration) -> str:
        """Try the candidates and keep the best; return what fails where none holds."""
        candidates = [*self.options.candidates]
        for candidate in candidates:
            self.try_candidate(candidate, faces, reading)
        if not best(self.tried):
            for candidate in self.options.fallbacks:
                self.try_candidate(candidate, faces, reading)
            candidates += self.options.fallbacks
        if not best(self.tried) and self.options.accuracy_control:
            self.note("No candidate holds: accuracy control gives layers back to floating point (this takes long).")
            closest = min(zip(self.tried, candidates, strict=True), key=lambda pair: _misses(pair[0]))[1]
            self.try_candidate(dataclasses.replace(closest, control=True), faces, reading)
        chosen = best(self.tried)
        if chosen is None:
            return self.why_none(faces)
        self.chosen = chosen.name
        self.networks["int8"] = self.networks[chosen.name]
        for isa in ("native", BOARD):
            self.found["int8", isa] = self.found[chosen.name, isa]
        return ""

    def try_candidate(self, candidate: Candidate, faces: ExportFaces, reading: Calibration) -> None:
        """Quantize one candidate, measure it under both instruction sets and hold it against the limits."""
        path = self.networks[candidate.name] = self.work / candidate.name.replace(" ", "_") / "model.xml"
        control, isa = None, "native"
        if candidate.control:
            fp32, isa = self.found["fp32", BOARD], BOARD
            control = Control(faces.measured, fp32, LimitMetric(faces.labels, fp32, reading, self.options.limits))
        given = (self.networks["fp32"], path, candidate, self.contract, faces.calibration, control)
        with self.steps.step(f"INT8 {candidate.name} quantized", len(faces.calibration)) as advance:
            self.workers.run(quantize, *given, isa=isa, advance=advance)
        for isa in ("native", BOARD):
            self.measure((candidate.name,), faces, isa)
        tried = judge_candidate(
            candidate.name,
            labels=faces.labels,
            groups=faces.groups,
            fp32_board=self.found["fp32", BOARD],
            native=self.found[candidate.name, "native"],
            board=self.found[candidate.name, BOARD],
            reading=reading,
            limits=self.options.limits,
        )
        if not layers_in_int8(path):
            # Accuracy control ends there where nothing else holds: right, but FP32 under another name.
            tried = dataclasses.replace(tried, failed=(*tried.failed, "no layer is left in INT8"))
        self.tried.append(tried)

    def why_none(self, faces: ExportFaces) -> str:
        """Say what each candidate misses, and which layers of the closest one hurt most."""
        closest = min(self.tried, key=_misses)
        networks = (self.networks["fp32"], self.networks[closest.name])
        with self.steps.step("Layers compared"):
            found = self.workers.run(layers_that_hurt, *networks, self.contract, faces.calibration, isa=BOARD)
        worst = ", ".join(f"{layer.layer} (+{layer.added:.1%})" for layer in found)
        missed = "; ".join(f"{tried.name}: {', '.join(tried.failed)}" for tried in self.tried)
        text = f"no INT8 network holds on the board ({missed}); the layers that hurt most in {closest.name}: {worst}"
        self.notes.append(text)
        return text

    def calibrate(self, faces: ExportFaces) -> None:
        """Fit temperature and thresholds of each precision, on the board's logits where there are some."""
        calibrations, metrics = dict(self.contract.calibrations), dict(self.contract.metrics)
        for name in (precision.value for precision in Precision):
            logits = self.found.get((name, BOARD), self.found.get((name, "native")))
            if logits is not None:
                reading = calibrations[name] = fit_calibration(logits, faces.labels, **self.allowed)
                metrics[name] = measure(
                    faces.labels, scores(logits, reading), threshold=reading.balanced, groups=faces.groups
                )
        self.contract = self.contract.replace(calibrations=calibrations, metrics=metrics)

    def collect(self, certificate: Certificate) -> None:
        """Put everything into the bundle's folder, the manifest last."""
        precisions = {name: path for name, path in self.networks.items() if name in self.options.parts}
        apart = {name: path for name, path in self.networks.items() if name == SALIENCY_PART}
        golden = self.golden(precisions)
        for name, path in {**precisions, **apart}.items():
            write_contract(path, self.contract)
            shutil.move(path.parent, self.folder / name)
        if ONNX in self.options.parts:
            shutil.move(self.onnx.parent, self.folder / ONNX)
        if not add_face_model(self.folder, self.options.face_model):
            self.note(f"No face detector in the bundle: {HOW_TO_GET}, or give --face-model FILE, and export again.")
        write_export_report(
            self.folder / "report.html",
            contract=self.contract,
            certificate=certificate,
            tried=self.tried,
            chosen=self.chosen,
            limits=self.options.limits,
            golden=golden,
            notes=self.notes,
            tools=tool_versions(),
        )
        parity = {
            "certificate": certificate.to_dict(),
            "candidates": plain(self.tried),
            "chosen": self.chosen,
            "limits": plain(self.options.limits),
        }
        write_training_faces(self.folder, self.trained)
        shutil.rmtree(self.work)
        write_manifest(self.folder, self.contract, self.options.name, parity)

    def golden(self, precisions: dict[str, Path]) -> Golden:
        """Draw the golden pictures and measure what the precisions answer."""
        with self.steps.step("Golden pictures drawn and measured"):
            pictures = draw_golden(self.folder / "golden", self.model, self.contract)
            golden = measure_golden(self.workers, pictures, precisions, self.model, self.contract)
            (self.folder / GOLDEN).write_text(golden.to_json(), encoding="utf-8")
        return golden


def allowed_errors(contract: ModelContract, options: Options) -> dict[str, float]:
    """Return `max_fpr` and `max_fnr`, that every precision's thresholds are fitted to: as asked, or as trained."""
    trained = contract.calibration(CHECKPOINT)
    return {
        "max_fpr": trained.max_fpr if options.max_fpr is None else options.max_fpr,
        "max_fnr": trained.max_fnr if options.max_fnr is None else options.max_fnr,
    }


def _title(name: str) -> str:
    return name.upper() if name in PARTS else f"INT8 {name}"


def _misses(tried: Tried) -> tuple[float, ...]:
    """Order candidates that don't hold: the fewest limits missed, then the fewest decisions changed."""
    return (len(tried.failed), tried.against_fp32.changed + tried.to_board.changed, tried.against_fp32.mean_logit)
