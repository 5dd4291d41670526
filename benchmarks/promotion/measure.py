"""Both detectors on the same faces, and their rate and memory, as the board computes: capped to SSE4.2."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure.cases import Case, Job, Mode, TimingLimits
from benchmarks.measure.children import in_process, run_job
from benchmarks.measure.plan import picture_files, timed_faces
from board_setup.isa import BOARD
from edge_runtime.errors import DataError
from edge_runtime.model.contract import CHECKPOINT
from export.children.scratch import ScratchFolder
from train.data.build import load_data
from train.data.catalog import FaceRecord
from train.evaluation.evaluation import JudgedFaces, Subject, choose_split, open_subject
from train.evaluation.training_faces import among


@dataclass(frozen=True)
class Chosen:
    """The faces to judge, how many come from each `--data`, and how many were left out since a detector knows them."""

    faces: tuple[FaceRecord, ...]
    counts: Mapping[str, int]
    trained: int


def faces_to_compare(data: Sequence[Path], pair: Sequence[Subject]) -> Chosen:
    """Return the test splits of `data` without faces that a detector of `pair` was trained on; a picture counts once.

    Raises:
        DataError: nothing is left, or a picture has two labels.
    """
    found: dict[str, FaceRecord] = {}
    counts: dict[str, int] = {}
    for path in data:
        catalog = load_data(path)
        faces = catalog.split(choose_split(path, catalog, "auto"))
        for face in faces:
            if found.setdefault(face.sha256, face).label != face.label:
                other = found[face.sha256].path
                raise DataError(f"{other} and {face.path} are the same picture, once real and once fake; remove one")
        counts[str(path)] = len(faces)
    known = {face.sha256 for subject in pair for face in among(subject.trained, found.values())}
    kept = tuple(face for mark, face in found.items() if mark not in known)
    if len({face.label for face in kept}) < 2:
        raise DataError(
            f"--data {', '.join(map(str, data))}: {len(kept)} faces are left to judge, not of both classes "
            f"({len(known)} were trained on); give faces that neither detector knows"
        )
    return Chosen(kept, counts, len(known))


def judge_both(pair: Sequence[Subject], faces: Sequence[FaceRecord]) -> tuple[JudgedFaces, JudgedFaces]:
    """Return what both detectors of `pair` say about the faces that can be read, each computed in a process of its own.

    Raises:
        DataError: none can be read.
    """
    logits = []
    for subject in pair:
        # A checkpoint runs in PyTorch, which the board never does.
        isa = "native" if subject.precision == CHECKPOINT else BOARD
        logits.append(in_process(_logits, subject.path, subject.precision, faces, isa=isa))
    read = np.logical_and.reduce([np.isfinite(rows).all(axis=1) for rows in logits])
    if not read.any():
        raise DataError(f"none of the {len(faces)} pictures can be read; run prepare-faces again")
    kept = tuple(face for face, fine in zip(faces, read, strict=True) if fine)
    gone = tuple(face.path for face, fine in zip(faces, read, strict=True) if not fine)
    old, new = (
        JudgedFaces(kept, rows[read], subject.calibration, gone) for rows, subject in zip(logits, pair, strict=True)
    )
    return old, new


def _logits(path: Path, precision: str, faces: Sequence[FaceRecord]) -> NDArray[np.float32]:
    """Runs in a process of its own."""
    subject = open_subject(path, precision=None if precision == CHECKPOINT else precision)
    return subject.logits(faces, None, None)


def measure_machine(
    pair: Sequence[Subject], faces: Sequence[FaceRecord], *, rounds: int, seconds: float
) -> list[dict[str, list[float]]]:
    """Return `rate` (frames/s, file to verdict) and `memory` (MB) of each bundle of `pair`, round by round in turn."""
    found: list[dict[str, list[float]]] = [{"rate": [], "memory": []} for _ in pair]
    with ScratchFolder() as cache:
        pictures = picture_files(timed_faces(faces), cache)
        for _ in range(rounds):
            for subject, measured in zip(pair, found, strict=True):
                case = Case(subject.name, subject.precision, Mode.THROUGHPUT, isa=BOARD)
                job = Job(case, str(subject.path), None, pictures, limits=TimingLimits(seconds=seconds), outputs=False)
                figures = run_job(job, cache).figures
                measured["rate"].append(figures["end_to_end_fps"])
                measured["memory"].append(figures["rss_peak_mb"])
    return found
