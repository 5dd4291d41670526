"""Where the model looked: the network's saliency map, laid over the part of the picture that it was shown."""

import base64
import io
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from PIL import Image

from edge_runtime.inference.classifier import compile_network
from edge_runtime.inference.core import openvino_core
from edge_runtime.inference.engine import Answer, Choice, Engine, cache_properties
from edge_runtime.model.contract import ModelContract, Precision
from edge_runtime.pixels.boxes import Box
from edge_runtime.pixels.preprocess import crop_offsets, face_region

SALIENCY = "saliency_map"
"""The network's output, [1, 2, h, w]: per label, how much each place speaks for it."""

CELLS = 28
"""A side of the map of a face of several crops."""

DRAWN = 112
"""Pixels a side of the map as it is drawn."""

REAL_COLOUR, FAKE_COLOUR, ANY_COLOUR = (0, 92, 230), (240, 80, 0), (150, 50, 200)
"""Blue, orange and violet: told apart by all eyes."""

OWN_NETWORK = "saliency/model.xml"
"""Where a bundle has a network of its own for the map (a vision transformer's), which knows no labels."""


@dataclass(frozen=True)
class HeatMap:
    """Where the model looked.

    Attributes:
        region: what it was shown of the picture: left, top, right, bottom in pixels.
        values: float [h, w] in [-1, 1]; above 0 speaks for fake, below for real; 1 is the strongest place of this face.
        labelled: false where the map tells only where the model looked, in [0, 1].
    """

    region: Box
    values: NDArray[np.float32]
    labelled: bool = True

    def to_png(self) -> bytes:
        """Return the map as a PNG to lay over its region, in the colours above, clear where it is weak."""
        drawn = Image.fromarray(self.values).resize((DRAWN, DRAWN), Image.Resampling.BICUBIC)
        values = np.clip(np.asarray(drawn), -1.0, 1.0)
        pixels = np.empty((DRAWN, DRAWN, 4), np.uint8)
        pixels[..., :3] = np.where(values[..., None] > 0, FAKE_COLOUR if self.labelled else ANY_COLOUR, REAL_COLOUR)
        pixels[..., 3] = 165 * np.abs(values) ** 1.2
        file = io.BytesIO()
        Image.fromarray(pixels, "RGBA").save(file, "PNG")
        return file.getvalue()

    def to_data_uri(self) -> str:
        """Return the PNG as a `data:` address."""
        return "data:image/png;base64," + base64.b64encode(self.to_png()).decode()


class HeatNetwork:
    """The bundle's saliency maps, computed on the CPU by a network that is compiled when it is first asked for.

    Args:
        engine: its bundle holds the network, in the precision that the engine runs; it computes the logits where the
            map has a network of its own.
    """

    def __init__(self, engine: Engine) -> None:
        self.labelled = OWN_NETWORK not in engine.bundle.manifest.files
        self._engine, self._bundle = engine, engine.bundle
        self._choice = Choice("CPU", engine.choice.precision)
        self._path = self._checked(self._choice.precision)
        outputs = openvino_core().read_model(self._path).outputs
        self.there = any(SALIENCY in output.get_names() for output in outputs)
        self._lock = threading.Lock()
        self._request: ov.InferRequest | None = None

    def _checked(self, precision: Precision) -> Path:
        if self.labelled:
            return self._bundle.model(precision)
        return self._bundle.file(OWN_NETWORK, "saliency/model.bin")

    def answer(self, pixels: NDArray[np.uint8]) -> Answer:
        """Return a row of logits and map for each crop, float32 [N, 2 + 2·h·w], for uint8 [N, H, W, 3]."""
        with self._lock:
            if self._request is None:
                compiled = compile_network(openvino_core(), self._path, self._bundle.contract, **cache_properties())
                self._request = compiled.create_infer_request()
            rows = np.stack([_row(self._request, crop) for crop in pixels])
        if self.labelled:
            return Answer(rows, self._choice, self._bundle.contract.calibration(self._choice.precision.value))
        answer = self._engine.answer(pixels)
        rows[:, :2] = answer.logits
        return replace(answer, logits=rows)


def _row(request: ov.InferRequest, crop: NDArray[np.uint8]) -> NDArray[np.float32]:
    request.infer([crop[None]])
    logits, saliency = request.get_output_tensor(0).data[0], request.get_tensor(SALIENCY).data[0]
    return np.concatenate([logits, saliency.ravel()])


def heat_map(
    rows: NDArray[np.float32],
    size: tuple[int, int],
    box: Sequence[float] | None,
    contract: ModelContract,
    *,
    labelled: bool = True,
) -> HeatMap:
    """Return the map of a face from the rows of its crops.

    Args:
        rows: float32 [K, 2·h·w], as the network gave it for each crop.
        size: the picture's width and height.
        box: the face; None for the whole picture.
        contract: says how the crops were cut.
        labelled: whether the two labels have maps of their own.
    """
    side = round((rows.shape[1] // 2) ** 0.5)
    maps = rows.reshape(-1, 2, side, side)
    evidence = maps[:, 1] - maps[:, 0] if labelled else maps[:, 1] - maps[:, 1].min()
    region = face_region(size, box, contract)
    places = _places(region, contract)
    if len(places) == 1:
        region, values = _part(region, places[0]), evidence[0]
    else:
        values = _joined(evidence, places)
    largest = float(np.abs(values).max())
    return HeatMap(region, (values / largest if largest else values).astype(np.float32), labelled)


def _places(region: Box, contract: ModelContract) -> list[Box]:
    """Return where each crop lies in the region, as shares of its sides."""
    recipe, size = contract.pixels, contract.input_size
    width, height = (recipe.resize_to or region[2] - region[0], recipe.resize_to or region[3] - region[1])
    width, height = max(int(width), size), max(int(height), size)
    offsets = crop_offsets((width, height), size, recipe.crops)
    return [(x / width, y / height, (x + size) / width, (y + size) / height) for x, y in offsets]


def _part(region: Box, place: Box) -> Box:
    left, top, right, bottom = region
    width, height = right - left, bottom - top
    return (left + place[0] * width, top + place[1] * height, left + place[2] * width, top + place[3] * height)


def _joined(maps: NDArray[np.float32], places: list[Box]) -> NDArray[np.float32]:
    """Lay the crops' maps over one another, the mean where several saw a place."""
    total = np.zeros((CELLS, CELLS), np.float32)
    seen = np.zeros((CELLS, CELLS), np.float32)
    for values, place in zip(maps, places, strict=True):
        left, top, right, bottom = (round(CELLS * edge) for edge in place)
        drawn = Image.fromarray(values).resize((right - left, bottom - top), Image.Resampling.BILINEAR)
        total[top:bottom, left:right] += np.asarray(drawn)
        seen[top:bottom, left:right] += 1
    return np.asarray(total / np.maximum(seen, 1), np.float32)
