"""The face stage: BlazeFace full range, run by OpenVINO, finds the faces of a picture.

The model (MediaPipe, Apache-2.0; Bazarevsky et al. 2019, "BlazeFace: Sub-millisecond Neural Face Detection on Mobile
GPUs") looks at one square of 192×192 pixels and answers for each cell of a grid of 48×48 with a box, six keypoints and
a logit. It was made for front cameras, whose picture is mirrored, so it is shown the picture mirrored.
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
"""Where the model lies in a bundle."""

THRESHOLD = 0.45
"""Chosen by measuring, see docs/results/faces.md; a face that is found scores at least this."""

TILE_THRESHOLD = 0.6
"""For faces that only a tile shows: it sees less around a face, so it errs more often."""

OVERLAP = 0.3
"""Two boxes of this intersection over union, or more, are one face."""

INSIDE = 0.7
"""A box of which this share lies in a better one is the same face, seen in part."""

KEYPOINTS = ("left_eye", "right_eye", "nose", "mouth", "left_ear", "right_ear")
"""Left and right as they are in the picture."""

_MIRRORED_KEYPOINTS = (1, 0, 2, 3, 5, 4)


@dataclass(frozen=True)
class DetectedFace:
    """A face that was found.

    Attributes:
        box: in pixels of the picture and inside it; from the eyebrows to the chin.
        detection: how sure the face stage is, in [0, 1].
        keypoints: x and y in pixels, in the order of KEYPOINTS; they may lie outside the picture.
    """

    box: Box
    detection: float
    keypoints: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class _Candidates:
    """Boxes [N, 4] and keypoints [N, 6, 2] in pixels of the picture, scores [N] in [0, 1]."""

    boxes: NDArray[np.float32]
    keypoints: NDArray[np.float32]
    scores: NDArray[np.float32]

    def __getitem__(self, chosen: Any) -> "_Candidates":
        return _Candidates(self.boxes[chosen], self.keypoints[chosen], self.scores[chosen])


class FaceStage:
    """Finds the faces of pictures; may be called from several threads at once.

    Args:
        model_path: the TFLite model (or an IR of it).
        device: OpenVINO's name of the device.
        tiled: also look at four overlapping quarters of the picture, for far faces; five times the work.
        threshold: the least score of a face, in [0, 1].
        properties: more settings for OpenVINO's compiler, such as CACHE_DIR.

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
        self.tiled = tiled
        self.threshold = threshold
        self._compiled = _compile(Path(model_path), device, properties or {})
        self._size = int(self._compiled.input(0).shape[1])
        self._boxes, self._logits = sorted(range(2), key=lambda index: -self._compiled.output(index).shape[2])
        self._anchors = _anchors(int(self._compiled.output(self._boxes).shape[1]))
        self._local = threading.local()

    def detect(self, picture: Image.Image) -> list[DetectedFace]:
        """Return the faces of `picture`, RGB, the surest first."""
        whole = (0.0, 0.0, float(picture.width), float(picture.height))
        found = self._look(picture, whole, self.threshold)
        if self.tiled:
            tiles = [
                _seen_whole(self._look(picture, tile, self._tile_threshold), tile, whole) for tile in _tiles(whole)
            ]
            found = _joined([found, *tiles])
        return _faces(suppress(found), picture.size)

    @property
    def _tile_threshold(self) -> float:
        return max(self.threshold, TILE_THRESHOLD)

    def _look(self, picture: Image.Image, region: Box, threshold: float) -> _Candidates:
        pixels, scale, offset = letterbox(picture, region, self._size)
        request = self._request()
        request.infer([pixels[None, :, ::-1]])
        raw = request.get_output_tensor(self._boxes).data[0]
        scores = _sigmoid(request.get_output_tensor(self._logits).data[0, :, 0])
        chosen = scores >= threshold
        boxes, keypoints = _decode(raw[chosen], self._anchors[chosen], self._size)
        boxes = (boxes - np.tile(offset, 2)) / scale + np.tile(region[:2], 2)
        keypoints = (keypoints - offset) / scale + region[:2]
        return _Candidates(boxes.astype(np.float32), keypoints.astype(np.float32), scores[chosen])

    def _request(self) -> ov.InferRequest:
        # A request holds its own tensors, so that each thread needs its own.
        if not hasattr(self._local, "request"):
            self._local.request = self._compiled.create_infer_request()
        return self._local.request


def letterbox(picture: Image.Image, region: Box, size: int) -> tuple[NDArray[np.uint8], float, tuple[int, int]]:
    """Shrink or enlarge `region` of `picture` into the middle of a black square.

    Returns:
        the pixels, uint8 [size, size, 3]; the scale, square's pixels per pixel of the picture; the left top corner of
        what is seen in the square.
    """
    left, top, right, bottom = region
    scale = size / max(right - left, bottom - top)
    width, height = (max(1, round(side * scale)) for side in (right - left, bottom - top))
    small = picture.resize((width, height), Image.Resampling.BILINEAR, box=region, reducing_gap=2.0)
    offset = ((size - width) // 2, (size - height) // 2)
    pixels = np.zeros((size, size, 3), np.uint8)
    pixels[offset[1] : offset[1] + height, offset[0] : offset[0] + width] = np.asarray(small)
    return pixels, scale, offset


def suppress(candidates: _Candidates) -> _Candidates:
    """Keep one candidate a face, the surest; its box is the mean of those it stands for, weighted by their scores.

    This is MediaPipe's weighted non-maximum suppression.
    """
    left = candidates[np.argsort(-candidates.scores, kind="stable")]
    kept = []
    while len(left.scores):
        same = _same_face(left.boxes)
        group = left[same]
        weights = group.scores / group.scores.sum()
        box, keypoints = weights @ group.boxes, np.einsum("n,nkc->kc", weights, group.keypoints)
        kept.append(_Candidates(box[None], keypoints[None], group.scores[:1]))
        left = left[~same]
    return _joined(kept) if kept else left


def _same_face(boxes: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Say of each box whether it is the first one's face."""
    same = (overlaps(boxes[0], boxes) >= OVERLAP) | (intersections(boxes[0], boxes) >= INSIDE * areas(boxes))
    same[0] = True
    return same


def _compile(path: Path, device: str, properties: Mapping[str, Any]) -> ov.CompiledModel:
    if not path.is_file():
        raise BundleError(f"{path}: no face model; export the bundle again, or give --faces off")
    settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", **properties}
    if device == "CPU":
        settings["INFERENCE_PRECISION_HINT"] = "f32"
    core = openvino_core()
    try:
        model = core.read_model(path)
    except RuntimeError as error:
        raise BundleError(f"{path}: no model that can be read; export the bundle again") from error
    _check_tensors(path, model)
    prepost = ov.preprocess.PrePostProcessor(model)
    prepost.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    prepost.input().preprocess().convert_element_type(ov.Type.f32).mean(127.5).scale(127.5)
    prepost.input().model().set_layout(ov.Layout("NHWC"))
    try:
        return core.compile_model(prepost.build(), device, settings)
    except RuntimeError as error:
        raise DeviceError(f"{device}: can't run {path}; devices here: {', '.join(core.available_devices)}") from error


def _check_tensors(path: Path, model: ov.Model) -> None:
    given = [list(port.partial_shape.to_shape()) if port.partial_shape.is_static else [] for port in model.inputs]
    answers = sorted(list(port.partial_shape.to_shape()) for port in model.outputs if port.partial_shape.is_static)
    cells = answers[0][1] if answers and len(answers[0]) == 3 else 0
    square = len(given) == 1 and len(given[0]) == 4 and given[0][1] == given[0][2] and given[0][3] == 3
    if not square or answers != [[1, cells, 1], [1, cells, 16]] or math.isqrt(cells) ** 2 != cells:
        raise BundleError(f"{path}: not BlazeFace full range (it takes {given} and gives {answers}); give that model")


def _anchors(cells: int) -> NDArray[np.float32]:
    """Return the centre of each cell of the square grid, [cells, 2], as a share of the side, row by row."""
    centres = (np.arange(math.isqrt(cells), dtype=np.float32) + 0.5) / math.isqrt(cells)
    return np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2).astype(np.float32)


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(logits, -80.0, 80.0))), np.float32)


def _decode(
    raw: NDArray[np.float32], anchors: NDArray[np.float32], size: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return boxes [N, 4] and keypoints [N, 6, 2] in pixels of the square, mirrored back, from the model's [N, 16].

    The model gives centre, width and height, then the keypoints, in pixels and relative to the cell's centre
    (MediaPipe, tflite_tensors_to_detections_calculator.cc).
    """
    points = raw.reshape(-1, 8, 2)
    centre, half = points[:, 0] + anchors * size, points[:, 1] / 2.0
    boxes = np.concatenate([centre - half, centre + half], axis=1)
    keypoints = points[:, 2:] + anchors[:, None] * size
    boxes[:, [0, 2]] = size - boxes[:, [2, 0]]
    keypoints[:, :, 0] = size - keypoints[:, :, 0]
    return boxes, keypoints[:, _MIRRORED_KEYPOINTS]


def _tiles(whole: Box) -> list[Box]:
    """Return four quarters of the picture, each six tenths of its sides, so that neighbours share a fifth."""
    width, height = whole[2], whole[3]
    side_x, side_y = round(0.6 * width), round(0.6 * height)
    if min(side_x, side_y) < 1:
        return []
    corners = [(x, y) for y in (0.0, height - side_y) for x in (0.0, width - side_x)]
    return [(x, y, x + side_x, y + side_y) for x, y in corners]


def _seen_whole(found: _Candidates, tile: Box, whole: Box) -> _Candidates:
    """Leave out faces that an inner edge of the tile cuts: the whole picture or the next tile shows them better."""
    inner = np.array([edge != outer for edge, outer in zip(tile, whole, strict=True)])
    outside = np.concatenate([found.boxes[:, :2] < tile[:2], found.boxes[:, 2:] > tile[2:]], axis=1)
    return found[~(outside & inner).any(axis=1)]


def _joined(parts: list[_Candidates]) -> _Candidates:
    return _Candidates(
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.keypoints for part in parts]),
        np.concatenate([part.scores for part in parts]),
    )


def _faces(found: _Candidates, size: tuple[int, int]) -> list[DetectedFace]:
    boxes = np.clip(found.boxes, 0.0, np.tile(np.array(size, np.float32), 2))
    faces = []
    for box, keypoints, score in zip(boxes.tolist(), found.keypoints.tolist(), found.scores.tolist(), strict=True):
        if box[2] - box[0] >= 1.0 and box[3] - box[1] >= 1.0:
            faces.append(DetectedFace(tuple(box), score, tuple((x, y) for x, y in keypoints)))
    return faces
