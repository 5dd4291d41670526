"""The whole export: from a checkpoint to a verified bundle."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from torch import nn

from board_setup.isa import BOARD
from edge_runtime.errors import GateError, UsageError
from edge_runtime.model.bundle import Bundle
from edge_runtime.model.contract import CHECKPOINT, Calibration, ModelContract, Precision
from edge_runtime.model.golden import GOLDEN
from edge_runtime.model.reference import REFERENCE
from edge_runtime.paths import expand
from edge_runtime.plain_json import plain
from edge_runtime.printable import printable
from export.bundle.atomic import check_target, folder_in_one_step
from export.bundle.files import add_face_model, tool_versions, write_manifest
from export.bundle.sign import sign_folder
from export.children.process import start_workers
from export.context import Context, Steps
from export.convert.onnx import OnnxNetwork, read_source, to_onnx
from export.convert.openvino import save_network, to_openvino, write_contract
from export.convert.saliency import OUTPUTS, explain
from export.faces import ExportFaces, choose_faces, draw_faces
from export.int8.gate import Logits, Reading
from export.int8.search import Int8Choice, find_int8
from export.options import ONNX, ExportOptions, allowed_errors
from export.proof.certificate import Certificate, Measured, certify
from export.proof.golden import golden_pool, measure_golden, write_golden
from export.proof.reference import write_reference
from export.proof.report import write_export_report
from train.data.face_finder import HOW_TO_GET
from train.evaluation.calibrate import log_odds, refit
from train.evaluation.logits import face_qualities, judge
from train.evaluation.metrics import measure
from train.evaluation.training_faces import checkpoint_faces, write_training_faces
from train.models.backbones import find_backbone
from train.models.checkpoint import Checkpoint, load_model
from train.models.network import torch_logits

SALIENCY_PART = "saliency"
UNCALIBRATED = "Uncalibrated: exported without labelled faces, so there is no INT8, and the threshold is 0.5."


def export_bundle(
    checkpoint: Checkpoint | Path | str,
    calibration: Path | str | None,
    out: Path | str,
    *,
    options: ExportOptions | None = None,
    steps: Steps | None = None,
) -> Bundle:
    """Export a checkpoint as a bundle at `out`.

    `calibration` is a catalog or a folder with real/ and fake/; None takes the checkpoint's catalog. Without either,
    only FP32 and FP16 are exported, uncalibrated.

    Raises:
        GateError: no INT8 network was accepted; the bundle is there with the other precisions.
        CheckpointError, DataError, UsageError: an input can't be used; nothing was written.
    """
    options, steps, target = options or ExportOptions(), steps or Steps(), expand(out)
    check_target(target, replace=options.replace)
    source = checkpoint if isinstance(checkpoint, Checkpoint) else read_source(expand(checkpoint))
    data = calibration or source.catalog or None
    try:
        with folder_in_one_step(target, replace=options.replace) as folder, start_workers() as workers:
            work = folder / ".work"
            work.mkdir()
            contract = source.contract.replace(version=options.version or source.contract.version)
            if data:
                with steps.step("Faces read"):
                    faces = choose_faces(
                        Path(data),
                        calibration=options.calibration_faces,
                        measured=options.measured_faces,
                        seed=options.seed,
                        trained=checkpoint_faces(source),
                    )
            else:
                faces = draw_faces(work / "drawn")
            # Names go to the terminal only: a bundle is copied to others, who must not see paths of this machine.
            steps.left_out(faces.left_out)
            for note in faces.notes:
                steps.note(note)
            context = Context(contract=contract, faces=faces, options=options, workers=workers, steps=steps, work=work)
            failure = _write_bundle(folder, context, source)
            if options.key and not failure:
                steps.note(f"Signed with {printable(options.key)}, valid until {sign_folder(folder, options.key)}")
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"{target}: can't be written ({reason}); make room, or choose another --out") from error
    if failure:
        raise GateError(f"{failure}; {target} holds the other precisions and no INT8")
    return Bundle.open(target)


@dataclass(frozen=True)
class Proof:
    """What was measured of the networks; `contract` has each precision's temperature, thresholds and figures."""

    contract: ModelContract
    certificate: Certificate
    choice: Int8Choice
    notes: tuple[str, ...]


def _write_bundle(folder: Path, context: Context, source: Checkpoint) -> str:
    """Write the bundle's files into `folder`; return why INT8 is missing, empty if it is included or not wanted."""
    options, model = context.options, load_model(source)
    pool = golden_pool(options.golden, context.contract)
    networks = convert(model, context)
    proof = prove(model, networks, context)
    if proof.choice.chosen:
        networks["int8"] = proof.choice.chosen.network
    precisions = [precision.value for precision in Precision]
    shipped = {name: networks[name] for name in precisions if name in networks and name in options.parts}
    with context.steps.step("Golden pictures measured"):
        pictures = write_golden(folder / "golden", pool, model, context.contract)
        golden = measure_golden(context.workers, pictures, shipped, model, context.contract)
        (folder / GOLDEN).write_text(golden.to_json(), encoding="utf-8")
    notes = [*proof.notes]
    if context.faces.calibration:
        measured = {name: path for name, path in networks.items() if name in ("fp32", "int8")}
        notes.append(write_reference(folder, measured, proof.contract, context))
        if not (folder / REFERENCE).exists():
            context.steps.note(notes[-1])
    if SALIENCY_PART in networks:
        shipped[SALIENCY_PART] = networks[SALIENCY_PART]
    for name, path in shipped.items():
        write_contract(path, proof.contract)
        shutil.move(path.parent, folder / name)
    if ONNX in options.parts:
        shutil.move(networks[ONNX].parent, folder / ONNX)
    if not add_face_model(folder, options.face_model):
        notes.append(f"No face detector in the bundle: {HOW_TO_GET}, or give --face-model FILE, and export again.")
        context.steps.note(notes[-1])
    chosen = proof.choice.chosen.result.name if proof.choice.chosen else ""
    write_export_report(
        folder / "report.html",
        contract=proof.contract,
        certificate=proof.certificate,
        results=proof.choice.results,
        chosen=chosen,
        limits=options.limits,
        golden=golden,
        notes=notes,
        tools=tool_versions(),
    )
    write_training_faces(folder, checkpoint_faces(source))
    shutil.rmtree(context.work)
    parity = {
        "certificate": proof.certificate.to_dict(),
        "candidates": [result.to_dict() for result in proof.choice.results],
        "chosen": chosen,
        "limits": plain(options.limits),
    }
    write_manifest(folder, proof.contract, options.name, parity, source.extra.get("trained_on"))
    return proof.choice.failure


def convert(model: nn.Module, context: Context) -> dict[str, Path]:
    """Convert PyTorch to ONNX, FP32 and FP16; return their files by part.

    A transformer also gets its own saliency network, part SALIENCY_PART.
    """
    contract, work, steps = context.contract, context.work, context.steps
    explained = explain(model, find_backbone(contract.architecture))
    files = {ONNX: work / ONNX / "model.onnx"}
    files[ONNX].parent.mkdir()
    with steps.step("ONNX written and checked"):
        to_onnx(explained.network, contract, files[ONNX], explained.outputs)
    with steps.step("FP32 and FP16 converted"):
        network = to_openvino(files[ONNX], contract)
        for name in ("fp32", "fp16"):
            files[name] = work / name / "model.xml"
            save_network(network, files[name], half=name == "fp16")
    if explained.apart:
        with steps.step("Saliency network converted"):
            apart = work / "apart.onnx"
            to_onnx(explained.apart, contract, apart, OUTPUTS)
            files[SALIENCY_PART] = work / SALIENCY_PART / "model.xml"
            save_network(to_openvino(apart, contract), files[SALIENCY_PART], half=True)
    return files


def prove(model: nn.Module, networks: Mapping[str, Path], context: Context) -> Proof:
    """Measure the networks, find an INT8 network, calibrate each precision and compare the stages."""
    faces, options = context.faces, context.options
    measured = measure_floats(model, networks, context)
    if not faces.calibration:
        context.steps.note(UNCALIBRATED)
        certificate = certify(measured, None, Reading(Calibration()))
        return Proof(context.contract, certificate, Int8Choice(), (*faces.notes, UNCALIBRATED))
    allowed = allowed_errors(context.contract, options)
    like = context.contract.calibration(CHECKPOINT)
    qualities = face_qualities(faces.measured, context.contract) if like.groups else None
    # The reading that FP32 ships with, so that the gate counts the decisions that change on the board.
    fp32 = refit(like, measured["fp32", BOARD], faces.labels, qualities, groups=faces.groups, **allowed)
    reading = Reading(fp32, qualities)
    choice = Int8Choice()
    if Precision.INT8.value in options.parts:
        choice = find_int8(context, networks["fp32"], measured["fp32", BOARD], reading)
    if choice.chosen:
        measured |= {("int8", isa): logits for isa, logits in choice.chosen.logits.items()}
    return Proof(
        contract=calibrate(context.contract, measured, faces, qualities, allowed),
        certificate=certify(measured, faces.labels, reading),
        choice=choice,
        notes=(*faces.notes, *choice.notes),
    )


def measure_floats(model: nn.Module, networks: Mapping[str, Path], context: Context) -> dict[tuple[str, str], Logits]:
    """Return the logits of PyTorch, ONNX, FP32 and FP16, and of FP32 as the board computes it."""
    contract, steps = context.contract, context.steps
    few = context.faces.measured[: context.options.parity_faces]
    measured: dict[tuple[str, str], Logits] = {}
    with steps.step("PyTorch measured", len(few)) as advance:
        measured["torch", "native"] = judge(torch_logits(model, contract), contract, few, progress=advance)
    with steps.step("ONNX measured", len(few)) as advance:
        runtime = OnnxNetwork(networks[ONNX], contract)
        measured[ONNX, "native"] = judge(runtime, contract, few, progress=advance)
    for isa, names in (("native", ("fp32", "fp16")), (BOARD, ("fp32",))):
        found = context.measure({name: networks[name] for name in names}, isa)
        measured |= {(name, isa): logits for name, logits in found.items()}
    return measured


def calibrate(
    contract: ModelContract,
    measured: Measured,
    faces: ExportFaces,
    qualities: NDArray[np.float64] | None,
    allowed: Mapping[str, float],
) -> ModelContract:
    """Return `contract` with temperature, thresholds and figures of each precision, as the board computes it.

    FP16 is not measured under the board's instruction set; its logits are the workstation's. `qualities` are those of
    the measured faces [N, 3], None if the checkpoint's calibration has no groups.
    """
    calibrations, metrics = dict(contract.calibrations), dict(contract.metrics)
    like = contract.calibration(CHECKPOINT)
    for name in (precision.value for precision in Precision):
        logits = measured.get((name, BOARD), measured.get((name, "native")))
        if logits is not None:
            reading = calibrations[name] = refit(like, logits, faces.labels, qualities, groups=faces.groups, **allowed)
            scores = expit(log_odds(logits, reading, qualities))
            metrics[name] = measure(faces.labels, scores, threshold=reading.balanced, groups=faces.groups)
    return contract.replace(calibrations=calibrations, metrics=metrics)
