"""INT8: which ways to quantize there are, how one is done with NNCF, and which layers hurt where none holds."""

import re
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
from edge_runtime.pixels.pictures import read_picture
from edge_runtime.pixels.preprocess import face_pixels
from export.children.protocol import Advance
from export.convert.saliency import LOGITS
from train.data.build import FaceRecord

CALIBRATION_FACES = 300
RANKING_FACES = 32
"""Accuracy control computes each layer's share on so many faces."""

NOISE_FACES = 16
WRAPPERS = re.compile(r"^(network|model)\.")
"""What `export.convert.saliency` puts before the names of the model's own layers."""

LAYERS = ("Convolution", "GroupConvolution", "MatMul")
METRIC_DROP = 0.01
"""What accuracy control may drop: `export.int8.gate.LimitMetric` scales its metric so that this means the limits."""


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


@dataclass(frozen=True)
class Control:
    """What accuracy control is held to.

    Attributes:
        faces: NNCF's validation set.
        exact: the floating-point network's logits [N, 2] of these faces, crops averaged.
        judge: from the logits of all these faces to a metric whose drop is to stay within METRIC_DROP.
    """

    faces: Sequence[FaceRecord]
    exact: NDArray[np.float32]
    judge: Callable[[NDArray[np.float32]], float]


def quantize(
    xml: Path,
    out: Path,
    candidate: Candidate,
    contract: ModelContract,
    faces: Sequence[FaceRecord],
    control: Control | None = None,
    *,
    advance: Advance = lambda count: None,
) -> None:
    """Write the INT8 network of the FP32 network `xml`, calibrated on `faces`.

    With `control`, layers are given back to floating point until its judge is content, in the end all of them
    (`layers_in_int8` tells). This must run under the board's instruction set to mean anything for the board.
    """
    import nncf

    model = openvino_core().read_model(xml)
    options = {
        "preset": nncf.QuantizationPreset[candidate.preset],
        "subset_size": len(faces),
        "model_type": nncf.ModelType.TRANSFORMER if contract.architecture.startswith("vit") else None,
        "ignored_scope": nncf.IgnoredScope(names=[*beside_the_logits(model), last_layer(model)]),
    }
    advanced = nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix[candidate.overflow_fix])
    data = nncf.Dataset(_Images(faces, contract, advance))
    with signal_stack_kept():
        if control is None:
            quantized = nncf.quantize(model, data, advanced_parameters=advanced, **options)
        else:
            quantized = nncf.quantize_with_accuracy_control(
                model,
                data,
                nncf.Dataset(_Numbered(control.faces, contract)),
                _validation(control),
                max_drop=METRIC_DROP,
                advanced_quantization_parameters=advanced,
                advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
                    ranking_subset_size=min(RANKING_FACES, len(control.faces) - 1), num_ranking_workers=1
                ),
                **options,
            )
    out.parent.mkdir(parents=True, exist_ok=True)
    ov.save_model(quantized, out, compress_to_fp16=False)


def _validation(control: Control) -> Callable[[Any, Iterable[tuple[int, NDArray[np.float32]]]], Any]:
    """Return NNCF's validation function: a metric, larger is better, and how near each face is to the exact network.

    Of all faces the metric is the judge's. Of some of them, by which NNCF ranks layers, it is how near they are: few
    faces change no decision, so the judge could not tell layers apart. (Given whole outputs instead of figures,
    NNCF 3.4 gives the layers back that hurt least.)
    """

    def validate(compiled: Any, numbered: Iterable[tuple[int, NDArray[np.float32]]]) -> tuple[float, list[float]]:
        found = {number: _mean_logits(compiled, images) for number, images in numbered}
        near = [-float(np.abs(logits - control.exact[number]).max()) for number, logits in found.items()]
        if len(found) < len(control.faces):
            return float(np.mean(near)), near
        return control.judge(np.stack(list(found.values()))), near

    return validate


def _mean_logits(compiled: Any, images: NDArray[np.float32]) -> NDArray[np.float32]:
    mean: NDArray[np.float32] = np.mean([compiled(image[None])[LOGITS][0] for image in images], axis=0)
    return mean


def layers_in_int8(xml: Path) -> int:
    """Count the layers whose weights are bytes."""
    operations = openvino_core().read_model(xml).get_ops()
    return sum(op.get_type_name() == "Constant" and op.get_element_type() == ov.Type.i8 for op in operations)


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


def last_layer(model: ov.Model) -> str:
    """Name the last layer, which stays in floating point.

    It is no work to speak of. What comes before it is rounded to INT8; where a sum lies between two steps, its last bit
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


def layers_that_hurt(
    fp32: Path, int8: Path, contract: ModelContract, faces: Sequence[FaceRecord], count: int = 5
) -> list[LayerNoise]:
    """Return the `count` layers whose quantization adds the most noise, the worst first.

    The noise of a layer is the squared error of its output relative to the output's own square, in the mean over faces.
    """
    core = openvino_core()
    names = _layer_names(core.read_model(fp32))
    networks = [_with_layers(core, path, list(names)) for path in (fp32, int8)]
    errors = np.zeros(len(names))
    for image in _Images(faces[:NOISE_FACES], contract, lambda count: None):
        exact, coarse = (list(network([image]).values())[-len(names) :] for network in networks)
        errors += [_relative_error(first, second) for first, second in zip(exact, coarse, strict=True)]
    errors /= min(len(faces), NOISE_FACES)
    added = np.diff(errors, prepend=0.0)
    order = np.argsort(-added)[:count]
    labels = list(names.values())
    return [LayerNoise(labels[index], float(added[index])) for index in order]


def _layer_names(model: ov.Model) -> dict[str, str]:
    """Return each layer's operation and its name in PyTorch, as its weights are called."""
    names, floating = {}, {*beside_the_logits(model), last_layer(model)}
    for op in model.get_ordered_ops():
        own = op.get_friendly_name()
        if op.get_type_name() in LAYERS and own not in floating:
            weights = op.input(1).get_source_output().get_node().get_friendly_name()
            names[own] = WRAPPERS.sub("", weights.removesuffix(".weight")) if "." in weights else own
    return names


def _with_layers(core: ov.Core, path: Path, names: Sequence[str]) -> ov.CompiledModel:
    model = core.read_model(path)
    by_name = {op.get_friendly_name(): op for op in model.get_ordered_ops()}
    model.add_outputs([by_name[name].output(0) for name in names])
    return core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def _relative_error(exact: NDArray[Any], coarse: NDArray[Any]) -> float:
    return float(((exact - coarse) ** 2).sum() / max(float((exact**2).sum()), 1e-12))


def _network_input(face: FaceRecord, contract: ModelContract) -> NDArray[np.float32]:
    """Return a face's crops as the network takes them, float [K, 3, H, W]."""
    crops = face_pixels(read_picture(face.path), face.box, contract).astype(np.float32)
    mean, scale = 255.0 * np.array(contract.mean, np.float32), 255.0 * np.array(contract.scale, np.float32)
    return ((crops - mean) / scale).transpose(0, 3, 1, 2)


class _Images:
    """The first crops of faces, [1, 3, H, W], read each time anew: 300 in memory at once would be 180 MB."""

    def __init__(self, faces: Sequence[FaceRecord], contract: ModelContract, advance: Advance) -> None:
        self.faces, self.contract, self.advance = faces, contract, advance
        self.told = False

    def __len__(self) -> int:
        return len(self.faces)

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        first, self.told = not self.told, True
        for face in self.faces:
            try:
                image = _network_input(face, self.contract)[:1]
            except PictureError:
                continue
            if first:
                # Before the picture is handed out: who has enough does not come back after the last.
                self.advance(1)
            yield image


class _Numbered:
    """Faces by number with all their crops, [K, 3, H, W], as they are measured."""

    def __init__(self, faces: Sequence[FaceRecord], contract: ModelContract) -> None:
        self.faces, self.contract = faces, contract

    def __len__(self) -> int:
        return len(self.faces)

    def __iter__(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: int) -> tuple[int, NDArray[np.float32]]:
        return number, _network_input(self.faces[number], self.contract)
