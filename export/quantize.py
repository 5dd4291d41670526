"""INT8: which ways to quantize there are, and how one is done with NNCF."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from edge_runtime.contract import ModelContract
from edge_runtime.errors import PictureError
from edge_runtime.pictures import read_picture
from edge_runtime.preprocess import face_pixels
from export.saliency import LOGITS
from train.catalog import FaceRecord
from train.workers import Advance

CALIBRATION_FACES = 300
TRANSFORMERS = ("vit",)


@dataclass(frozen=True)
class Candidate:
    """One way to quantize.

    Attributes:
        preset: PERFORMANCE (symmetric) or MIXED (asymmetric activations), NNCF's `QuantizationPreset`.
        overflow_fix: which layers' weights use one bit less, so that 16-bit sums can't saturate: ENABLE (all),
            FIRST_LAYER or DISABLE (none), NNCF's `OverflowFix`.
        control: layers that hurt are given back to floating point, NNCF's accuracy control.
    """

    preset: str = "PERFORMANCE"
    overflow_fix: str = "ENABLE"
    control: bool = False

    @property
    def name(self) -> str:
        """How tables call it."""
        return f"{self.preset} {self.overflow_fix}" + (" with accuracy control" if self.control else "")


def quantize(
    xml: Path, out: Path, candidate: Candidate, contract: ModelContract, faces: Sequence[FaceRecord], advance: Advance
) -> None:
    """Write the INT8 network of the FP32 network `xml`, calibrated on `faces`."""
    import nncf

    model = ov.Core().read_model(xml)
    data = nncf.Dataset(_Images(faces, contract, advance))
    quantized = nncf.quantize(
        model,
        data,
        preset=nncf.QuantizationPreset[candidate.preset],
        subset_size=len(faces),
        model_type=nncf.ModelType.TRANSFORMER if contract.architecture.startswith(TRANSFORMERS) else None,
        ignored_scope=nncf.IgnoredScope(names=beside_the_logits(model)),
        advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix[candidate.overflow_fix]),
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    ov.save_model(quantized, out, compress_to_fp16=False)


def beside_the_logits(model: ov.Model) -> list[str]:
    """Name the operations that the logits do not depend on: quantizing these would change nothing but the maps."""
    seen: set[str] = set()
    waiting = [model.output(LOGITS).get_node()]
    while waiting:
        node = waiting.pop()
        if node.get_friendly_name() not in seen:
            seen.add(node.get_friendly_name())
            waiting += [given.get_source_output().get_node() for given in node.inputs()]
    skipped = ("Constant", "Result", "Parameter")
    others = (op for op in model.get_ordered_ops() if op.get_type_name() not in skipped)
    return [op.get_friendly_name() for op in others if op.get_friendly_name() not in seen]


class _Images:
    """The network's inputs [1, 3, H, W] of faces, read each time anew: 300 in memory at once would be 180 MB."""

    def __init__(self, faces: Sequence[FaceRecord], contract: ModelContract, advance: Advance) -> None:
        self.faces, self.contract, self.advance = faces, contract, advance
        self.mean = 255.0 * np.array(contract.mean, np.float32)
        self.scale = 255.0 * np.array(contract.scale, np.float32)
        self.told = False

    def __len__(self) -> int:
        return len(self.faces)

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        first, self.told = not self.told, True
        for face in self.faces:
            try:
                crop = face_pixels(read_picture(face.path), face.box, self.contract)[:1]
            except PictureError:
                continue
            yield ((crop.astype(np.float32) - self.mean) / self.scale).transpose(0, 3, 1, 2)
            if first:
                self.advance(1)
