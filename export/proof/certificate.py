"""The parity certificate: what changes from stage to stage, from PyTorch to the board, on labelled faces."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from board_setup.isa import BOARD
from edge_runtime.plain_json import plain
from export.int8.gate import Difference, Logits, Reading, difference, margins

Measured = Mapping[tuple[str, str], Logits]
"""Logits [N, 2] by network and instruction set."""

STAGES = (
    ("PyTorch", "torch", "native"),
    ("ONNX", "onnx", "native"),
    ("FP32", "fp32", "native"),
    ("FP32 on the board", "fp32", BOARD),
    ("FP16", "fp16", "native"),
    ("INT8", "int8", "native"),
    ("INT8 on the board", "int8", BOARD),
)
"""Name, network and instruction set, in order."""


@dataclass(frozen=True)
class CertificateStage:
    """One stage.

    Attributes:
        auc: on the faces that went through PyTorch, the same ones in all stages; None without labels of both classes.
        from_pytorch: the difference on the same faces; None for PyTorch itself.
        from_before: the difference from the stage before, on the faces that both have; None for the first stage.
    """

    name: str
    faces: int
    auc: float | None
    from_pytorch: Difference | None
    from_before: Difference | None
    before: str


@dataclass(frozen=True)
class Certificate:
    """All stages that were measured, on at most `faces` faces.

    `spread` is FP32's largest logit of fake − logit of real, less the smallest: parity on faces that are all alike
    would prove little.
    """

    stages: Sequence[CertificateStage]
    faces: int
    spread: float

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        values: dict[str, Any] = plain(self)
        return values


def certify(measured: Measured, labels: Sequence[int] | None, reading: Reading) -> Certificate:
    """Compare the stages that were measured, all with one `reading`.

    PyTorch and ONNX may have judged only the first of the faces; `labels` are those of all faces, None where unknown.
    """
    found = [(name, measured[network, isa]) for name, network, isa in STAGES if (network, isa) in measured]

    def compare(first: Logits, second: Logits) -> Difference:
        count = min(len(first), len(second))
        return difference(first[:count], second[:count], reading)

    pytorch = found[0][1]
    common = None if labels is None else labels[: len(pytorch)]
    stages = []
    for index, (name, logits) in enumerate(found):
        before, logits_before = found[index - 1] if index else ("", logits)
        stages.append(
            CertificateStage(
                name=name,
                faces=len(logits),
                auc=reading.auc(common, logits[: len(common)]) if common and len(set(common)) == 2 else None,
                from_pytorch=compare(pytorch, logits) if index else None,
                from_before=compare(logits_before, logits) if index else None,
                before=before,
            )
        )
    margin = margins(measured["fp32", "native"])
    return Certificate(stages=tuple(stages), faces=len(margin), spread=float(margin.max() - margin.min()))
