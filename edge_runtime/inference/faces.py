"""Finds faces with BlazeFace full range, run by OpenVINO.

The model (MediaPipe, Apache-2.0; Bazarevsky et al. 2019, "BlazeFace: Sub-millisecond Neural Face Detection on Mobile
GPUs") sees one square of 192×192 pixels and answers for each cell of a 48×48 grid with a box, six keypoints and a
logit. It was made for front cameras, whose picture is mirrored, so it is shown the picture mirrored.
"""

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from PIL import Image

from edge_runtime.errors import BundleError, DeviceError
from edge_runtime.inference.core import openvino_core
from edge_runtime.pixels.boxes import Box, areas, intersections, overlaps

FACE_MODEL = "face/face_detection.tflite"
"""Path of the model in a bundle."""

THRESHOLD = 0.45
"""Lowest confidence of a face, chosen by measurement (docs/results/faces.md)."""

TILE_THRESHOLD = 0.6
"""For faces found only in a tile, where there is less context and so more false detections."""

SAME_OVERLAP = 0.3
"""Boxes of at least this intersection over union are one face."""

SAME_INSIDE = 0.7
"""A box with at least this share of its area in a better one is part of the same face."""

KEYPOINTS = ("left_eye", "right_eye", "nose", "mouth", "left_ear", "right_ear")
"""Left and right as seen in the picture."""

_MIRRORED_KEYPOINTS = (1, 0, 2, 3, 5, 4)


@dataclass(frozen=True)
class DetectedFace:
    """A detected face.

    Attributes:
        box: in pixels, inside the picture; from the eyebrows to the chin.
        detection: the confidence, in [0, 1].
        keypoints: x and y in pixels, in the order of KEYPOINTS; they may lie outside the picture.
    """

    box: Box
    detection: float
    keypoints: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Candidates:
    """Boxes [N, 4] and keypoints [N, 6, 2] in pixels of the picture, scores [N] in [0, 1]."""

    boxes: NDArray[np.float32]
    keypoints: NDArray[np.float32]
    scores: NDArray[np.float32]

    def __getitem__(self, chosen: Any) -> "Candidates":
        return Candidates(self.boxes[chosen], self.keypoints[chosen], self.scores[chosen])

    @classmethod
    def join(cls, parts: "list[Candidates]") -> "Candidates":
        """Concatenate `parts`, at least one."""
        return cls(
            np.concatenate([part.boxes for part in parts]),
            np.concatenate([part.keypoints for part in parts]),
            np.concatenate([part.scores for part in parts]),
        )


class FaceDetector:
    """Finds the faces in pictures; several threads may call it at once.

    Args:
        model_path: the TFLite model, or an IR of it.
        device: an OpenVINO device.
        tiled: also search four overlapping quarters of the picture, for distant faces; five times the work.
        threshold: lowest confidence of a face, in [0, 1].
        properties: further OpenVINO properties, such as CACHE_DIR.

    Raises:
        BundleError: the file is missing or another model.
        DeviceError: the device can't compile it.
    """

    def __init__(
        self,
        model_path: Path | str,
        device: str = "CPU",
        *,
        tiled: bool = False,
        threshold: float = THRESHOLD,
        properties: Mapping[str, Any] | None = None,
    ) -> None:
        self.tiled, self.threshold = tiled, threshold
        self._compiled = _compile(Path(model_path), device, properties or {})
        self._size = int(self._compiled.input(0).shape[1])
        self._boxes, self._logits = sorted(range(2), key=lambda index: -self._compiled.output(index).shape[2])
        cells = math.isqrt(int(self._compiled.output(self._boxes).shape[1]))
        centres = (np.arange(cells, dtype=np.float32) + 0.5) / cells
        self._anchors = np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2) * np.float32(self._size)
        self._local = threading.local()

    def detect(self, picture: Image.Image) -> list[DetectedFace]:
        """Return the faces in `picture`, RGB or RGBX, most confident first."""
        whole = (0.0, 0.0, float(picture.width), float(picture.height))
        parts = [self._search(picture, whole, self.threshold)]
        if self.tiled:
            threshold = max(self.threshold, TILE_THRESHOLD)
            parts += [drop_cut(self._search(picture, tile, threshold), tile, whole) for tile in tiles(picture.size)]
        found = suppress(Candidates.join(parts))
        boxes = np.clip(found.boxes, 0.0, np.tile(np.array(picture.size, np.float32), 2))
        faces = zip(boxes.tolist(), found.scores.tolist(), found.keypoints.tolist(), strict=True)
        return [
            DetectedFace(tuple(box), score, tuple((x, y) for x, y in keypoints))
            for box, score, keypoints in faces
            if box[2] - box[0] >= 1.0 and box[3] - box[1] >= 1.0
        ]

    def _search(self, picture: Image.Image, region: Box, threshold: float) -> Candidates:
        """Return what the model finds in `region` of `picture`.

        The model gives centre, width and height, then the keypoints, in pixels relative to the cell's centre
        (MediaPipe, tflite_tensors_to_detections_calculator.cc).
        """
        pixels, scale, offset = letterbox(picture, region, self._size)
        if not hasattr(self._local, "request"):
            # A request owns its tensors, so each thread needs its own.
            self._local.request = self._compiled.create_infer_request()
        request = self._local.request
        request.infer([pixels[None, :, ::-1]])
        logits = request.get_output_tensor(self._logits).data[0, :, 0]
        scores = np.asarray(1.0 / (1.0 + np.exp(-np.clip(logits, -80.0, 80.0))), np.float32)
        chosen = scores >= threshold
        points = request.get_output_tensor(self._boxes).data[0][chosen].reshape(-1, 8, 2)
        anchors = self._anchors[chosen]
        centre, half = points[:, 0] + anchors, points[:, 1] / 2.0
        boxes = np.concatenate([centre - half, centre + half], axis=1)
        keypoints = points[:, 2:] + anchors[:, None]
        # Mirror back.
        boxes[:, [0, 2]] = self._size - boxes[:, [2, 0]]
        keypoints[:, :, 0] = self._size - keypoints[:, :, 0]
        boxes = (boxes - np.tile(offset, 2)) / scale + np.tile(region[:2], 2)
        keypoints = (keypoints[:, _MIRRORED_KEYPOINTS] - offset) / scale + region[:2]
        return Candidates(boxes.astype(np.float32), keypoints.astype(np.float32), scores[chosen])


def _compile(path: Path, device: str, properties: Mapping[str, Any]) -> ov.CompiledModel:
    if not path.is_file():
        raise BundleError(f"{path}: face model not found; export the bundle again, or give --faces off")
    core = openvino_core()
    try:
        model = core.read_model(path)
    except RuntimeError as error:
        raise BundleError(f"{path}: not a model that can be read; export the bundle again") from error
    given = [list(port.partial_shape.to_shape()) if port.partial_shape.is_static else [] for port in model.inputs]
    answers = sorted(list(port.partial_shape.to_shape()) for port in model.outputs if port.partial_shape.is_static)
    cells = answers[0][1] if answers and len(answers[0]) == 3 else 0
    square = len(given) == 1 and len(given[0]) == 4 and given[0][1] == given[0][2] and given[0][3] == 3
    if not square or answers != [[1, cells, 1], [1, cells, 16]] or math.isqrt(cells) ** 2 != cells:
        raise BundleError(f"{path}: not BlazeFace full range (it takes {given} and gives {answers}); give that model")
    prepost = ov.preprocess.PrePostProcessor(model)
    prepost.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    prepost.input().preprocess().convert_element_type(ov.Type.f32).mean(127.5).scale(127.5)
    prepost.input().model().set_layout(ov.Layout("NHWC"))
    settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", **properties}
    if device == "CPU":
        settings["INFERENCE_PRECISION_HINT"] = "f32"
    try:
        return core.compile_model(prepost.build(), device, settings)
    except RuntimeError as error:
        raise DeviceError(f"{device}: can't run {path}; devices here: {', '.join(core.available_devices)}") from error


def letterbox(picture: Image.Image, region: Box, size: int) -> tuple[NDArray[np.uint8], float, tuple[int, int]]:
    """Resize `region` of `picture` into the middle of a black square.

    Returns:
        the pixels, uint8 [size, size, 3]; the scale, in pixels of the square per pixel of the picture; the left top
        corner of the region in the square.
    """
    left, top, right, bottom = region
    scale = size / max(right - left, bottom - top)
    width, height = (max(1, round(side * scale)) for side in (right - left, bottom - top))
    small = picture.resize((width, height), Image.Resampling.BILINEAR, box=region, reducing_gap=2.0)
    offset = ((size - width) // 2, (size - height) // 2)
    pixels = np.zeros((size, size, 3), np.uint8)
    pixels[offset[1] : offset[1] + height, offset[0] : offset[0] + width] = np.asarray(small)[:, :, :3]
    return pixels, scale, offset


def tiles(size: tuple[int, int]) -> list[Box]:
    """Return four quarters of a picture, each 0.6 of its sides, so that neighbours share a fifth."""
    width, height = (round(0.6 * side) for side in size)
    if min(width, height) < 1:
        return []
    corners = [(float(x), float(y)) for y in (0, size[1] - height) for x in (0, size[0] - width)]
    return [(x, y, x + width, y + height) for x, y in corners]


def drop_cut(found: Candidates, tile: Box, whole: Box) -> Candidates:
    """Drop faces cut by an inner edge of `tile`: the whole picture or the next tile shows them better."""
    inner = np.array([edge != outer for edge, outer in zip(tile, whole, strict=True)])
    outside = np.concatenate([found.boxes[:, :2] < tile[:2], found.boxes[:, 2:] > tile[2:]], axis=1)
    return found[~(outside & inner).any(axis=1)]


def suppress(candidates: Candidates) -> Candidates:
    """Merge the candidates of each face into one: the highest score, and the mean box weighted by the scores.

    This is MediaPipe's weighted non-maximum suppression.
    """
    left = candidates[np.argsort(-candidates.scores, kind="stable")]
    kept = []
    while len(left.scores):
        best = left.boxes[0]
        inside = intersections(best, left.boxes) >= SAME_INSIDE * areas(left.boxes)
        same = (overlaps(best, left.boxes) >= SAME_OVERLAP) | inside
        same[0] = True
        group = left[same]
        weights = group.scores / group.scores.sum()
        box, keypoints = weights @ group.boxes, np.einsum("n,nkc->kc", weights, group.keypoints)
        kept.append(Candidates(box[None], keypoints[None], group.scores[:1]))
        left = left[~same]
    return Candidates.join(kept) if kept else left
