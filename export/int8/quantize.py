"""Quantize one candidate to INT8 with NNCF, and find the layers that lose most by it."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from edge_runtime.errors import PictureError
from edge_runtime.inference.core import openvino_core, signal_stack_kept
from edge_runtime.model.contract import ModelContract
from edge_runtime.pixels.preprocess import face_pixels, normalized
from export.children.worker import Advance
from export.convert.saliency import LOGITS, WRAPPERS
from train.data.catalog import FaceRecord

CALIBRATION_FACES = 300
RANKING_FACES = 32  # Accuracy control ranks the layers on this many.
NOISE_FACES = 16  # `sensitive_layers` compares the layers on this many.
LAYERS = ("Convolution", "GroupConvolution", "MatMul")
METRIC_DROP = 0.01
"""The drop that accuracy control allows; `export.int8.gate.LimitMetric` scales its metric to it."""


@dataclass(frozen=True)
class Int8Candidate:
    """One way to quantize.

    Attributes:
        preset: PERFORMANCE (symmetric) or MIXED (asymmetric activations), NNCF's `QuantizationPreset`.
        overflow_fix: which layers' weights use one bit less, so that 16-bit sums can't saturate: ENABLE (all),
            FIRST_LAYER or DISABLE (none), NNCF's `OverflowFix`.
        control: return the most sensitive layers to floating point, NNCF's accuracy control.
        histogram: take the range of activations that minimizes the error on their histogram, not their extremes.
    """

    preset: str = "PERFORMANCE"
    overflow_fix: str = "ENABLE"
    control: bool = False
    histogram: bool = False

    @property
    def name(self) -> str:
        """Its name in tables."""
        histogram, control = " HISTOGRAM" * self.histogram, " with accuracy control" * self.control
        return f"{self.preset} {self.overflow_fix}{histogram}{control}"


@dataclass(frozen=True)
class Control:
    """What accuracy control works against.

    Attributes:
        faces: NNCF's validation set.
        exact: the floating-point network's logits [N, 2] of these faces, crops averaged.
        metric: from the logits of all these faces to a figure that may drop by METRIC_DROP.
    """

    faces: Sequence[FaceRecord]
    exact: NDArray[np.float32]
    metric: Callable[[NDArray[np.float32]], float]

    def validate(self, compiled: Any, numbered: Iterable[tuple[int, NDArray[np.float32]]]) -> tuple[float, list[float]]:
        """NNCF's validation function: return the metric, larger is better, and how close each face is to `exact`.

        NNCF ranks layers on a few faces. These change no decision, so the metric could not tell layers apart; there it
        is the mean closeness. (Given whole outputs instead of figures, NNCF 3.4 returns the least sensitive layers.)
        """
        found = {
            number: np.mean([compiled(image[None])[LOGITS][0] for image in images], axis=0)
            for number, images in numbered
        }
        close = [-float(np.abs(logits - self.exact[number]).max()) for number, logits in found.items()]
        if len(found) < len(self.faces):
            return float(np.mean(close)), close
        return self.metric(np.stack(list(found.values()))), close


def quantize(
    xml: Path,
    out: Path,
    candidate: Int8Candidate,
    contract: ModelContract,
    faces: Sequence[FaceRecord],
    control: Control | None = None,
    *,
    advance: Advance = lambda count: None,
) -> None:
    """Write the INT8 network of the FP32 network `xml`, calibrated on `faces`.

    With `control`, layers return to floating point until its metric is reached, if need be all of them
    (`layers_in_int8` counts). This must run under the board's instruction set to mean anything for the board.
    """
    import nncf
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    model = openvino_core().read_model(xml)
    options = {
        "preset": nncf.QuantizationPreset[candidate.preset],
        "subset_size": len(faces),
        "model_type": nncf.ModelType.TRANSFORMER if contract.architecture.startswith("vit") else None,
        "ignored_scope": nncf.IgnoredScope(names=[*beside_the_logits(model), last_layer(model)]),
    }
    advanced = nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix[candidate.overflow_fix])
    if candidate.histogram:
        advanced.activations_range_estimator_params = RangeEstimatorParametersSet.HISTOGRAM
    data = nncf.Dataset(_Images(faces, contract, advance))
    with signal_stack_kept():
        if control is None:
            quantized = nncf.quantize(model, data, advanced_parameters=advanced, **options)
        else:
            quantized = nncf.quantize_with_accuracy_control(
                model,
                data,
                nncf.Dataset(_Numbered(control.faces, contract)),
                control.validate,
                max_drop=METRIC_DROP,
                advanced_quantization_parameters=advanced,
                advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
                    ranking_subset_size=min(RANKING_FACES, len(control.faces) - 1), num_ranking_workers=1
                ),
                **options,
            )
    out.parent.mkdir(parents=True, exist_ok=True)
    ov.save_model(quantized, out, compress_to_fp16=False)


def layers_in_int8(xml: Path) -> int:
    """Count the layers whose weights are bytes."""
    operations = openvino_core().read_model(xml).get_ops()
    return sum(op.get_type_name() == "Constant" and op.get_element_type() == ov.Type.i8 for op in operations)


def beside_the_logits(model: ov.Model) -> list[str]:
    """Name the operations that the logits do not depend on: to quantize these would change nothing but the maps."""
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


def last_layer(model: ov.Model) -> str:
    """Name the last layer, which stays in floating point.

    It costs next to nothing. What comes before it is rounded to INT8; where a sum lies between two steps, its last bit
    decides, and that depends on the instruction set. One place of the last feature map that differs by a step moves a
    ResNet-50's logits by about 1e-5, and by 7e-5 where the last layer rounds once more.
    """
    node = model.output(LOGITS).get_node()
    while node.get_type_name() not in LAYERS:
        node = node.input(0).get_source_output().get_node()
    name: str = node.get_friendly_name()
    return name


@dataclass(frozen=True)
class LayerNoise:
    """How much one layer adds to the error: its output's relative error less that of the layer before it."""

    layer: str
    added: float


def sensitive_layers(
    fp32: Path, int8: Path, contract: ModelContract, faces: Sequence[FaceRecord], count: int = 5
) -> list[LayerNoise]:
    """Return the `count` layers whose quantization adds the most noise, the worst first, named as in PyTorch.

    The noise of a layer is the squared error of its output relative to the output's own square, in the mean over faces.
    """
    core = openvino_core()
    model = core.read_model(fp32)
    floating = {*beside_the_logits(model), last_layer(model)}
    names: dict[str, str] = {}
    for op in model.get_ordered_ops():
        own = op.get_friendly_name()
        if op.get_type_name() in LAYERS and own not in floating:
            weights = op.input(1).get_source_output().get_node().get_friendly_name()
            names[own] = WRAPPERS.sub("", weights.removesuffix(".weight")) if "." in weights else own

    def with_layer_outputs(path: Path) -> ov.CompiledModel:
        network = core.read_model(path)
        by_name = {op.get_friendly_name(): op for op in network.get_ordered_ops()}
        network.add_outputs([by_name[name].output(0) for name in names])
        return core.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    networks = [with_layer_outputs(path) for path in (fp32, int8)]
    rows = []
    for image in _Images(faces[:NOISE_FACES], contract):
        pairs = zip(*(list(network([image]).values())[-len(names) :] for network in networks), strict=True)
        rows.append([((exact - coarse) ** 2).sum() / max((exact**2).sum(), 1e-12) for exact, coarse in pairs])
    added = np.diff(np.mean(rows, axis=0), prepend=0.0)
    labels = list(names.values())
    return [LayerNoise(labels[index], float(added[index])) for index in np.argsort(-added)[:count]]


class _Numbered(Sequence[tuple[int, NDArray[np.float32]]]):
    """Faces by number with all their crops, normalized, [K, 3, H, W], as they are measured.

    They are read when asked for: 300 in memory would be 180 MB.
    """

    def __init__(self, faces: Sequence[FaceRecord], contract: ModelContract) -> None:
        self.faces, self.contract = faces, contract

    def __len__(self) -> int:
        return len(self.faces)

    def __getitem__(self, number: Any) -> Any:
        face = self.faces[number]
        return number, normalized(face_pixels(face.read(), face.box, self.contract), self.contract)


class _Images:
    """The first crop of each face that can be read, [1, 3, H, W]; `advance` counts in the first pass."""

    def __init__(
        self, faces: Sequence[FaceRecord], contract: ModelContract, advance: Advance = lambda count: None
    ) -> None:
        self.numbered, self.advance = _Numbered(faces, contract), advance

    def __len__(self) -> int:
        return len(self.numbered)

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        advance, self.advance = self.advance, lambda count: None
        for number in range(len(self)):
            with contextlib.suppress(PictureError):
                _, crops = self.numbered[number]
                # Before the image is yielded: NNCF stops after the last one that it needs.
                advance(1)
                yield crops[:1]
