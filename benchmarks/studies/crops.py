"""Compares the ways from a face to pixels (`--input`): AUC on clean and degraded faces, and time.

    python -m benchmarks.studies.crops runs/native/best.pth faces/

A network is best with the pixels it was trained on, so for a fair comparison give a checkpoint for each way. Each is
judged in all ways, and its own is marked. The networks run in float32 on the CPU with OpenVINO.
"""

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from edge_runtime.command import run_command
from edge_runtime.errors import DataError
from edge_runtime.inference.classifier import Classifier
from edge_runtime.judging.decide import fake_scores
from edge_runtime.model.bundle import Bundle
from edge_runtime.model.contract import ModelContract
from edge_runtime.paths import expand
from edge_runtime.pixels.preprocess import face_pixels
from export.children.scratch import ScratchFolder
from train.data.build import load_data
from train.data.catalog import FaceRecord
from train.data.sample import pick_faces
from train.data.splits import group_faces
from train.evaluation.evaluation import choose_split
from train.evaluation.logits import judge
from train.evaluation.metrics import Figure, measure
from train.evaluation.robustness import Condition
from train.report.html import figure_text

CONDITIONS = (Condition(), Condition(quality=50), Condition(scale=0.5))
TIMED = 32
"""Faces that are timed per round."""

ROUNDS = 3
RESAMPLES = 200
"""Bootstrap samples behind each interval."""


@dataclass(frozen=True)
class Way:
    """One way from a face to pixels: AUC by condition, and milliseconds per face from picture to logits."""

    name: str
    own: bool
    auc: Mapping[str, Figure]
    ms: float
    cpu_ms: float


def ways(contract: ModelContract) -> dict[str, ModelContract]:
    """Return `contract` with each way to pixels, by its name for `--input`."""
    from train.models.checkpoint import INPUTS, pixel_recipe

    return {name.value: contract.replace(pixels=pixel_recipe(name, contract.input_size)) for name in INPUTS}


def open_network(model: Path, folder: Path) -> tuple[Path, ModelContract]:
    """Return the float32 network of a bundle, or of a checkpoint after exporting it into `folder`."""
    if model.is_dir():
        bundle = Bundle.open(model)
        return bundle.model("fp32"), bundle.contract
    from export.convert.onnx import read_source, to_onnx
    from export.convert.openvino import save_network, to_openvino
    from train.models.checkpoint import load_model

    checkpoint = read_source(model)
    to_onnx(load_model(checkpoint), checkpoint.contract, folder / "model.onnx", ["logits"])
    save_network(to_openvino(folder / "model.onnx", checkpoint.contract), folder / "model.xml")
    return folder / "model.xml", checkpoint.contract


def compare_ways(xml: Path, contract: ModelContract, faces: Sequence[FaceRecord]) -> list[Way]:
    """Judge `faces` in every way, and time the ways on some of them."""
    contracts = ways(contract)
    network = Classifier(xml, contract)
    times = time_ways(network, contracts, faces[:: max(1, len(faces) // TIMED)][:TIMED])
    rows = []
    for name, way in contracts.items():
        figures = {condition.name: judge_way(network, way, faces, condition) for condition in CONDITIONS}
        ms, cpu_ms = times[name]
        rows.append(Way(name=name, own=way.pixels == contract.pixels, auc=figures, ms=ms, cpu_ms=cpu_ms))
    return rows


def judge_way(
    network: Classifier, contract: ModelContract, faces: Sequence[FaceRecord], condition: Condition
) -> Figure:
    """Return the AUC on `faces` after `condition`."""
    logits = judge(network.logits, contract, faces, corrupt=lambda picture, face: condition(picture, 0))
    read = np.asarray(np.isfinite(logits).all(axis=1))
    if not read.all():
        lost = next(face.path for face, fine in zip(faces, read, strict=True) if not fine)
        raise DataError(f"{lost}: can't be read; run prepare-faces again")
    labels, groups = [face.label for face in faces], group_faces(faces)
    return measure(labels, fake_scores(logits), groups=groups, bootstrap=RESAMPLES)["auc"]


def time_ways(
    network: Classifier, contracts: Mapping[str, ModelContract], faces: Sequence[FaceRecord]
) -> dict[str, tuple[float, float]]:
    """Return by way the median wall-clock and CPU milliseconds per face, from decoded picture to logits.

    The ways alternate face by face; the first round does not count.
    """
    pictures = [(face.read(), face.box) for face in faces]
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in contracts}
    for number in range(ROUNDS + 1):
        for picture, box in pictures:
            for name, contract in contracts.items():
                wall, core = time.perf_counter(), time.process_time()
                network.logits(face_pixels(picture, box, contract))
                taken = (time.perf_counter() - wall, time.process_time() - core)
                seen[name] += [taken] if number else []
    medians = {
        name: [1000 * statistics.median(values) for values in zip(*rows, strict=True)] for name, rows in seen.items()
    }
    return {name: (wall, cpu) for name, (wall, cpu) in medians.items()}


def print_ways(title: str, rows: Sequence[Way]) -> None:
    """Print a line for each way; the checkpoint's own has a star."""
    table = Table(title=title, title_justify="left")
    for head in (
        "input",
        *(f"AUC, {condition.name}" for condition in CONDITIONS),
        "time per face, ms",
        "CPU time per face, ms",
    ):
        table.add_column(head, justify="left" if head == "input" else "right")
    for row in rows:
        figures = [figure_text(row.auc[condition.name]) for condition in CONDITIONS]
        table.add_row(f"{row.name}{' *' if row.own else ''}", *figures, f"{row.ms:.1f}", f"{row.cpu_ms:.1f}")
    Console(highlight=False, width=120).print(table)


def crops(
    models: Annotated[list[Path], typer.Argument(help="Checkpoints or bundles.")],
    data: Annotated[Path, typer.Argument(help="A catalog.csv, or a folder with real/ and fake/.")],
    split: Annotated[str, typer.Option(help="The split to judge; make choices on valid.")] = "valid",
    faces: Annotated[int, typer.Option(min=20, help="Number of faces to judge.")] = 400,
) -> int:
    """Compare all ways of --input: AUC on clean, JPEG 50 and half-size faces, and time per face."""
    catalog = load_data(data)
    chosen = pick_faces(catalog.split(choose_split(data, catalog, split)), faces)
    if not chosen:
        raise DataError(f"{data}: the {split} split holds no faces; choose another --split")
    for model in models:
        with ScratchFolder() as folder:
            xml, contract = open_network(expand(model), folder)
            print_ways(f"{model}, {len(chosen)} faces ({split})", compare_ways(xml, contract, chosen))
    return 0


if __name__ == "__main__":
    run_command(crops, "python -m benchmarks.studies.crops")
