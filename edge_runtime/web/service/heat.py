"""Heat maps: where the model looked, from the network's saliency map."""

import base64
import io
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from PIL import Image

from edge_runtime.inference.classifier import compile_network, row_ports
from edge_runtime.inference.core import openvino_core
from edge_runtime.inference.engine import Answer, Choice, Engine, cache_properties
from edge_runtime.model.contract import Calibration, ModelContract, Verdict
from edge_runtime.pixels.boxes import Box
from edge_runtime.pixels.preprocess import crop_offsets, face_region

SALIENCY = "saliency_map"
"""The network's output, [1, 2, h, w]: for each label, how much each place speaks for it."""

CELLS = 28
"""Side of the map of a face with several crops."""

DRAWN_PIXELS = 112
"""Side of the drawn map."""

REAL_COLOUR, FAKE_COLOUR, ANY_COLOUR = (0, 92, 230), (240, 80, 0), (150, 50, 200)
"""Blue, orange and violet, which colour-blind people can tell apart."""

OWN_NETWORK = "saliency/model.xml"
"""A bundle's separate network for the map (of a vision transformer), whose map is the same for both labels."""


@dataclass(frozen=True)
class HeatMap:
    """Where the model looked at a face.

    Attributes:
        region: the part of the picture that it covers: left, top, right, bottom in pixels.
        values: float [h, w] in [-1, 1]; above 0 speaks for fake, below for real; 1 is this face's strongest place.
            Their mean has the sign of the verdict.
        labelled: False if the map only says where the model looked, in [0, 1].
    """

    region: Box
    values: NDArray[np.float32]
    labelled: bool = True

    def to_png(self, verdict: Verdict) -> bytes:
        """Return the map as a PNG to lay over its region, transparent where it is weak or speaks against `verdict`."""
        shown = self.values
        if self.labelled and verdict is not Verdict.UNCERTAIN:
            shown = shown.clip(0.0, None) if verdict is Verdict.FAKE else shown.clip(None, 0.0)
        shown = shown / (float(np.abs(shown).max()) or 1.0)
        drawn = Image.fromarray(shown).resize((DRAWN_PIXELS, DRAWN_PIXELS), Image.Resampling.BICUBIC)
        values = np.clip(np.asarray(drawn), -1.0, 1.0)
        pixels = np.empty((DRAWN_PIXELS, DRAWN_PIXELS, 4), np.uint8)
        pixels[..., :3] = np.where(values[..., None] > 0, FAKE_COLOUR if self.labelled else ANY_COLOUR, REAL_COLOUR)
        pixels[..., 3] = 165 * np.abs(values) ** 1.2
        file = io.BytesIO()
        Image.fromarray(pixels, "RGBA").save(file, "PNG")
        return file.getvalue()

    def to_data_uri(self, verdict: Verdict) -> str:
        """Return the PNG as a data URI."""
        return "data:image/png;base64," + base64.b64encode(self.to_png(verdict)).decode()


class HeatNetwork:
    """The bundle's network with saliency maps, on the CPU, compiled on first use, in the precision of `engine`.

    If the maps come from a separate network, `engine` computes the logits.

    Attributes:
        available: whether there is a saliency map.
        labelled: whether the two labels have maps of their own.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine, self._bundle = engine, engine.bundle
        self._choice = Choice("CPU", engine.choice.precision)
        self.labelled = OWN_NETWORK not in self._bundle.manifest.files
        if self.labelled:
            self._path = self._bundle.model(self._choice.precision)
        else:
            self._path = self._bundle.file(OWN_NETWORK, "saliency/model.bin")
        outputs = openvino_core().read_model(self._path).outputs
        shapes = [output.get_partial_shape() for output in outputs if SALIENCY in output.get_names()]
        self.available = any(shape.is_static and shape.compatible(ov.PartialShape([1, 2, -1, -1])) for shape in shapes)
        self._lock = threading.Lock()
        self._request: ov.InferRequest | None = None

    def answer(self, pixels: NDArray[np.uint8]) -> Answer:
        """Return logits and map of each crop, float32 [N, 2 + 2·h·w], for uint8 [N, H, W, 3]."""
        rows, maps = [], []
        with self._lock:
            if self._request is None:
                compiled = compile_network(openvino_core(), self._path, self._bundle.contract, **cache_properties())
                self._request = compiled.create_infer_request()
            request = self._request
            for crop in pixels:
                request.infer([crop[None]])
                ports = row_ports(request.get_compiled_model())
                rows.append(np.concatenate([request.get_tensor(port).data[0] for port in ports]))
                maps.append(request.get_tensor(SALIENCY).data.flatten())
        answer = self._engine.read(np.stack(rows), self._choice) if self.labelled else self._engine.answer(pixels)
        return replace(answer, logits=np.concatenate([answer.logits, maps], axis=1))


def heat_map(
    rows: NDArray[np.float32],
    size: tuple[int, int],
    box: Sequence[float] | None,
    contract: ModelContract,
    *,
    mean: float = 0.0,
    labelled: bool = True,
) -> HeatMap:
    """Return the map of a face from the maps of its crops.

    Args:
        rows: float32 [K, 2·h·w], the network's map of each crop.
        size: width and height of the picture.
        box: the face; None for the whole picture.
        contract: how the crops were cut.
        mean: of the evidence for fake over the map, which the network leaves open; see `beyond_threshold`.
        labelled: whether the two labels have maps of their own.
    """
    side = round((rows.shape[1] // 2) ** 0.5)
    maps = rows.reshape(-1, 2, side, side)
    evidence = maps[:, 1] - maps[:, 0] if labelled else maps[:, 1] - maps[:, 1].min()
    region = face_region(size, box, contract)
    places = crop_places(region, contract)
    if len(places) == 1:
        corner, scale = np.tile(region[:2], 2), np.tile(np.subtract(region[2:], region[:2]), 2)
        left, top, right, bottom = (corner + scale * places[0]).tolist()
        region, values = (left, top, right, bottom), evidence[0]
    else:
        values = merge_maps(evidence, places)
    if labelled:
        values = values + (mean - values.mean())
    largest = float(np.abs(values).max())
    return HeatMap(region, (values / largest if largest else values).astype(np.float32), labelled)


def beyond_threshold(score: float, verdict: Verdict, calibration: Calibration) -> float:
    """Return how far a face's logit lies beyond the threshold of its verdict: above 0 for fake, below for real."""
    middle = (calibration.low + calibration.high) / 2
    threshold = {Verdict.FAKE: calibration.high, Verdict.REAL: calibration.low}.get(verdict, middle)
    odds = [math.log(value / (1.0 - value)) for value in np.clip((score, threshold), 1e-9, 1.0 - 1e-9)]
    return calibration.temperature * (odds[0] - odds[1])


def crop_places(region: Box, contract: ModelContract) -> list[Box]:
    """Return the place of each crop in `region`, as fractions of its width and height."""
    recipe, input_size = contract.pixels, contract.input_size
    width = max(int(recipe.resize_to or region[2] - region[0]), input_size)
    height = max(int(recipe.resize_to or region[3] - region[1]), input_size)
    offsets = crop_offsets((width, height), input_size, recipe.crops)
    return [(x / width, y / height, (x + input_size) / width, (y + input_size) / height) for x, y in offsets]


def merge_maps(maps: NDArray[np.float32], places: Sequence[Box]) -> NDArray[np.float32]:
    """Return the mean of the crops' maps at their places, float32 [CELLS, CELLS]."""
    total = np.zeros((CELLS, CELLS), np.float32)
    count = np.zeros((CELLS, CELLS), np.float32)
    for values, place in zip(maps, places, strict=True):
        left, top, right, bottom = (round(CELLS * edge) for edge in place)
        resized = Image.fromarray(values).resize((right - left, bottom - top), Image.Resampling.BILINEAR)
        total[top:bottom, left:right] += np.asarray(resized)
        count[top:bottom, left:right] += 1
    return np.asarray(total / np.maximum(count, 1), np.float32)
