"""The options of an export."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edge_runtime.errors import UsageError
from edge_runtime.model.contract import CHECKPOINT, ModelContract, Precision
from export.int8.gate import GateLimits
from export.int8.quantize import CALIBRATION_FACES, Int8Candidate
from train.data.catalog import SEED

ONNX = "onnx"
PARTS = (*(precision.value for precision in Precision), ONNX)
"""What a bundle can hold."""

CANDIDATES = (Int8Candidate("PERFORMANCE", "ENABLE"), Int8Candidate("MIXED", "ENABLE"))
"""Tried by default: with the overflow fix in all layers, which passes on the board (docs/int8.md)."""

FALLBACKS = (Int8Candidate("PERFORMANCE", "FIRST_LAYER"), Int8Candidate("MIXED", "FIRST_LAYER"))
"""Tried if every candidate is refused: finer weights, but sums may saturate on the board."""

PRESETS, FIXES = ("PERFORMANCE", "MIXED"), ("ENABLE", "FIRST_LAYER", "DISABLE")
ALL_CANDIDATES = (
    *(Int8Candidate(preset, fix) for preset in PRESETS for fix in FIXES),
    *(Int8Candidate(preset, "ENABLE", histogram=True) for preset in PRESETS),
)


def named_candidates(text: str) -> tuple[tuple[Int8Candidate, ...], tuple[Int8Candidate, ...]]:
    """Return the candidates that `--candidates` names, and the fallbacks if none of them is accepted.

    Raises:
        UsageError: one is unknown.
    """
    if text == "quick":
        return CANDIDATES, FALLBACKS
    if text == "all":
        return ALL_CANDIDATES, ()
    known = {each.name.replace(" ", "-").lower(): each for each in ALL_CANDIDATES}
    names = [name.strip() for name in text.lower().split(",")]
    for name in names:
        if name not in known:
            raise UsageError(f"--candidates {text}: {name!r} is unknown; choose quick, all, or from {', '.join(known)}")
    return tuple(known[name] for name in names), ()


@dataclass(frozen=True)
class ExportOptions:
    """How an export is made.

    Attributes:
        parts: which of PARTS the bundle holds.
        version: the model's; empty keeps the checkpoint's.
        candidates, fallbacks: tried in this order, the fallbacks only if every candidate is refused.
        accuracy_control: if no candidate is accepted, return layers to floating point; slow.
        calibration_faces, measured_faces: at most this many.
        parity_faces: this many of the measured faces also go through PyTorch and ONNX Runtime.
        max_fpr, max_fnr: shares of reals called fake and fakes called real; None keeps the checkpoint's.
        face_model: the face detector's file; None takes the installed package's.
        golden: a folder of pictures to take the golden ones from; None draws them.
        replace: whether a bundle may be replaced.
        key: of `setup-board keygen`, signs the bundle unless its INT8 is refused; None leaves it unsigned.
    """

    parts: Sequence[str] = PARTS
    name: str = "detector"
    version: str = ""
    candidates: Sequence[Int8Candidate] = CANDIDATES
    fallbacks: Sequence[Int8Candidate] = FALLBACKS
    accuracy_control: bool = True
    limits: GateLimits = field(default_factory=GateLimits)
    calibration_faces: int = CALIBRATION_FACES
    measured_faces: int = 300
    parity_faces: int = 100
    seed: int = SEED
    max_fpr: float | None = None
    max_fnr: float | None = None
    face_model: Path | None = None
    golden: Path | None = None
    replace: bool = False
    key: str | None = None

    def __post_init__(self) -> None:
        if not set(self.parts) <= set(PARTS) or not set(self.parts) - {ONNX}:
            raise UsageError(
                f"--only {','.join(self.parts)}: choose from {', '.join(PARTS)}, at least one that is not onnx"
            )
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", self.name):
            raise UsageError(f"--name {self.name!r}: use letters, digits, dots, dashes and underscores, at most 64")


def allowed_errors(contract: ModelContract, options: ExportOptions) -> dict[str, float]:
    """Return `max_fpr` and `max_fnr` that thresholds are fitted to: from the options, else from the checkpoint."""
    trained = contract.calibration(CHECKPOINT)
    return {
        "max_fpr": trained.max_fpr if options.max_fpr is None else options.max_fpr,
        "max_fnr": trained.max_fnr if options.max_fnr is None else options.max_fnr,
    }
