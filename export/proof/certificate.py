"""The parity certificate: what changed on the way from PyTorch to the board, on labelled faces."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from board_setup.isa import BOARD
from edge_runtime.model.contract import Calibration
from export.int8.gate import Difference, Logits, auc_of, difference, margins, plain

STAGES = (
    ("PyTorch", "torch", "native"),
    ("ONNX", "onnx", "native"),
    ("FP32", "fp32", "native"),
    ("FP32 on the board", "fp32", BOARD),
    ("FP16", "fp16", "native"),
    ("INT8", "int8", "native"),
    ("INT8 on the board", "int8", BOARD),
)
"""Name, network and instruction set, in the order of the way."""


@dataclass(frozen=True)
class Stage:
    """One stage of the way.

    Attributes:
        name: of the stage.
        auc: on all its faces; None where there are no labels of both classes.
        from_pytorch: on the faces that went through PyTorch; None for PyTorch itself.
        from_before: from the stage before it; None for the first.
        before: that stage's name.
    """

    name: str
    faces: int
    auc: float | None
    from_pytorch: Difference | None
    from_before: Difference | None
    before: str


@dataclass(frozen=True)
class Certificate:
    """All stages that were measured.

    Attributes:
        stages: in the order of the way.
        faces: how many were measured at most.
        spread: largest logit of fake − logit of real less the smallest, in FP32: parity on faces that are all alike
            would prove little.
    """

    stages: Sequence[Stage]
    faces: int
    spread: float

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        values: dict[str, Any] = plain(self)
        return values


def certify(found: Mapping[tuple[str, str], Logits], labels: Sequence[int] | None, reading: Calibration) -> Certificate:
    """Compare what was measured, by network and instruction set, stage by stage.

    PyTorch and ONNX may have judged only the first of the faces: they are compared on these.
    """
    measured = [(name, found[key]) for name, *where in STAGES if (key := (where[0], where[1])) in found]
    stages, before = [], measured[0]
    for name, logits in measured:
        first = name == measured[0][0]
        stages.append(
            Stage(
                name,
                len(logits),
                _auc(labels, logits),
                None if first else _difference(measured[0][1], logits, reading),
                None if first else _difference(before[1], logits, reading),
                "" if first else before[0],
            )
        )
        before = (name, logits)
    values = margins(found["fp32", "native"])
    return Certificate(tuple(stages), len(values), float(values.max() - values.min()))


def _difference(before: Logits, after: Logits, reading: Calibration) -> Difference:
    count = min(len(before), len(after))
    return difference(before[:count], after[:count], reading)


def _auc(labels: Sequence[int] | None, logits: Logits) -> float | None:
    if labels is None or len(set(labels[: len(logits)])) < 2:
        return None
    return auc_of(labels[: len(logits)], logits)
