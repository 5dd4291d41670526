"""The export as a whole: from a checkpoint to a bundle that proves what it holds."""

import dataclasses
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from board_setup.isa import BOARD
from edge_runtime.bundle import Bundle
from edge_runtime.contract import Precision
from edge_runtime.errors import GateError
from export.atomic import check_target, folder_in_one_step
from export.bundle_files import HOW_TO_GET, add_face_model, write_manifest
from export.faces import ExportFaces, choose_faces
from export.golden import draw_golden, measure_golden
from export.jobs import run_job
from export.measure import measure_networks
from export.quantize import CALIBRATION_FACES, Candidate
from export.saliency import OUTPUTS, ExplainedCNN
from export.steps import Silent, Steps
from export.to_onnx import OnnxNetwork, read_source, to_onnx
from export.to_openvino import save_network, to_openvino, write_contract
from export.verify import Limits, Tried, best, judge_candidate, plain, scores
from train.backbones import find_backbone
from train.calibrate import fit_calibration
from train.catalog import Catalog
from train.checkpoint import Checkpoint, load_model
from train.evaluate import judge
from train.metrics import measure
from train.torch_network import torch_logits

Logits = NDArray[np.float32]

ONNX = "onnx"
PARTS = (*(precision.value for precision in Precision), ONNX)

CANDIDATES = tuple(
    Candidate(preset, overflow) for preset in ("PERFORMANCE", "MIXED") for overflow in ("ENABLE", "FIRST_LAYER")
)


@dataclass(frozen=True)
class Options:
    """How an export is made.

    Attributes:
        parts: which of PARTS the bundle holds.
        name, version: of the model; an empty version keeps the checkpoint's.
        candidates: what is tried for INT8, in this order.
        limits: what INT8 may change.
        calibration_faces, measured_faces: at most so many faces.
        parity_faces: of the measured ones, so many go through PyTorch and ONNX Runtime too.
        seed: of the choice of faces.
        face_model: the face detector's file; None takes the installed package's.
        replace: whether a bundle that is there already is replaced.
    """

    parts: Sequence[str] = PARTS
    name: str = "detector"
    version: str = ""
    candidates: Sequence[Candidate] = CANDIDATES
    limits: Limits = field(default_factory=Limits)
    calibration_faces: int = CALIBRATION_FACES
    measured_faces: int = 300
    parity_faces: int = 100
    seed: int = 42
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
    with tempfile.TemporaryDirectory(prefix="deepfake-edge-export-") as work, folder_in_one_step(target) as folder:
        failed = _Export(source, options, steps, Path(work), folder).run(Path(data).expanduser() if data else None)
    if failed:
        raise GateError(f"{failed}; {target} holds the other precisions and no INT8")
    return Bundle.open(target)


class _Export:
    """One export, step by step; what is measured is kept by name and instruction set."""

    def __init__(self, source: Checkpoint, options: Options, steps: Steps, work: Path, folder: Path) -> None:
        self.options, self.steps, self.work, self.folder = options, steps, work, folder
        self.contract = source.contract
        if options.version:
            self.contract = self.contract.replace(version=options.version)
        self.model = load_model(source)
        self.networks: dict[str, Path] = {}
        self.found: dict[tuple[str, str], Logits] = {}
        self.tried: list[Tried] = []
        self.chosen = ""

    def run(self, data: Path | None) -> str:
        """Write the bundle into its folder; return why there is no INT8, empty where there is or none was asked for."""
        self.convert()
        faces = self.choose_faces(data) if data else None
        failed = ""
        if faces:
            self.measure_floats(faces)
            if Precision.INT8.value in self.options.parts:
                failed = self.quantize(faces)
            self.calibrate(faces)
        else:
            self.steps.note("no --calibration: FP32 and FP16 only, uncalibrated")
        self.collect(faces)
        return failed

    def convert(self) -> None:
        """PyTorch to ONNX to FP32 and FP16."""
        explained: nn.Module = ExplainedCNN(self.model, find_backbone(self.contract.architecture)).eval()
        self.onnx = self.work / ONNX / "model.onnx"
        self.onnx.parent.mkdir()
        with self.steps.step("ONNX written and checked"):
            to_onnx(explained, self.contract, self.onnx, OUTPUTS)
        with self.steps.step("FP32 and FP16 converted"):
            network = to_openvino(self.onnx, self.contract)
            for name in ("fp32", "fp16"):
                self.networks[name] = self.work / name / "model.xml"
                save_network(network, self.networks[name], half=name == "fp16")

    def choose_faces(self, data: Path) -> ExportFaces:
        """Choose what calibrates and what is measured."""
        with self.steps.step("Faces read"):
            return choose_faces(
                data,
                calibration=self.options.calibration_faces,
                measured=self.options.measured_faces,
                seed=self.options.seed,
            )

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
        title = f"{', '.join(names).upper()} measured ({'as the board' if isa == BOARD else isa})"
        with self.steps.step(title, len(names) * len(faces.measured)) as advance:
            networks = {name: self.networks[name] for name in names}
            found = measure_networks(networks, self.contract, faces.measured, isa=isa, advance=advance)
        for name, logits in found.items():
            self.found[name, isa] = logits

    def quantize(self, faces: ExportFaces) -> str:
        """Try the candidates and keep the best; return what fails where none holds."""
        catalog = self.work / "calibration.csv"
        Catalog(faces.calibration).write(catalog)
        for candidate in self.options.candidates:
            self.try_candidate(candidate, faces, catalog)
        chosen = best(self.tried)
        if chosen is None:
            return "no INT8 network held: " + "; ".join(f"{t.name}: {', '.join(t.failed)}" for t in self.tried)
        self.chosen = chosen.name
        self.networks["int8"] = self.networks[chosen.name]
        for isa in ("native", BOARD):
            self.found["int8", isa] = self.found[chosen.name, isa]
        return ""

    def try_candidate(self, candidate: Candidate, faces: ExportFaces, catalog: Path) -> None:
        """Quantize one candidate, measure it twice and hold it against the limits."""
        path = self.networks[candidate.name] = self.work / candidate.name.replace(" ", "_") / "model.xml"
        values = {
            "contract": self.contract.to_dict(),
            "catalog": str(catalog),
            "xml": str(self.networks["fp32"]),
            "out": str(path),
            "candidate": dataclasses.asdict(candidate),
        }
        with self.steps.step(f"INT8 {candidate.name} quantized", len(faces.calibration)) as advance:
            run_job("quantize", values, advance=advance)
        for isa in ("native", BOARD):
            self.measure((candidate.name,), faces, isa)
        self.tried.append(
            judge_candidate(
                candidate.name,
                labels=[face.label for face in faces.measured],
                fp32_board=self.found["fp32", BOARD],
                native=self.found[candidate.name, "native"],
                board=self.found[candidate.name, BOARD],
                reading=fit_calibration(self.found["fp32", BOARD], [face.label for face in faces.measured]),
                limits=self.options.limits,
            )
        )

    def calibrate(self, faces: ExportFaces) -> None:
        """Fit temperature and thresholds of each precision, on the board's scores where there are some."""
        labels = [face.label for face in faces.measured]
        calibrations, metrics = dict(self.contract.calibrations), dict(self.contract.metrics)
        for name in (precision.value for precision in Precision):
            logits = self.found.get((name, BOARD), self.found.get((name, "native")))
            if logits is not None:
                reading = calibrations[name] = fit_calibration(logits, labels)
                metrics[name] = measure(labels, scores(logits, reading), threshold=reading.balanced)
        self.contract = self.contract.replace(calibrations=calibrations, metrics=metrics)

    def collect(self, faces: ExportFaces | None) -> None:
        """Put everything into the bundle's folder, the manifest last."""
        shipped = {name: path for name, path in self.networks.items() if name in self.options.parts}
        with self.steps.step("Golden pictures"):
            pictures = draw_golden(self.folder / "golden", self.model, self.contract)
            golden = measure_golden(pictures, shipped, self.model, self.contract)
            (self.folder / "golden" / "golden.json").write_text(golden.to_json(), encoding="utf-8")
        for name, path in shipped.items():
            write_contract(path, self.contract)
            shutil.move(path.parent, self.folder / name)
        if ONNX in self.options.parts:
            shutil.move(self.onnx.parent, self.folder / ONNX)
        if not add_face_model(self.folder, self.options.face_model):
            self.steps.note(
                f"no face detector in the bundle: {HOW_TO_GET}, or give --face-model FILE, and export again"
            )
        write_manifest(self.folder, self.contract, self.options.name, self.parity())

    def parity(self) -> dict[str, Any]:
        """Return what was measured, for `model.json`."""
        return {"candidates": plain(self.tried), "chosen": self.chosen}
