"""Faces blended into themselves: the seams of a face swap without anybody's second picture.

After Shiohara and Yamasaki 2022, "Detecting Deepfakes with Self-Blended Images", with the six points of our own face
detector in place of 81 landmarks.
"""

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from edge_runtime.inference.faces import FaceDetector

BORDERS = (0.0, 0.25, 0.5)
"""Black border around a picture, as a share of its sides: where a face fills the picture, none is found without."""

SHARES = (0.25, 0.5, 0.75, 1.0, 1.0, 1.0)
"""How much of the inner face replaces the outer one."""

Points = NDArray[np.float32]
"""The six points of a face [6, 2] in pixels, in the order of KEYPOINTS."""


def find_points(detector: FaceDetector, picture: Image.Image) -> Points | None:
    """Return the points of the most certain face; None where there is none."""
    for share in BORDERS:
        border = round(share * max(picture.size))
        faces = detector.detect(ImageOps.expand(picture, border))
        if faces:
            return np.array(faces[0].keypoints, np.float32) - np.float32(border)
    return None


def blend_into_itself(picture: Image.Image, points: Points, random: np.random.Generator) -> NDArray[np.float32]:
    """Return the picture with a changed copy of the inner face blended into it, float32 [H, W, 3] in [0, 255]."""
    outer = np.asarray(picture, dtype=np.float32)
    height, width = outer.shape[:2]
    inner = _change(outer, random)
    centre = points[:4].mean(axis=0)
    move = cv2.getRotationMatrix2D(
        (float(centre[0]), float(centre[1])), float(random.uniform(-2, 2)), float(random.uniform(0.95, 1.05))
    )
    move[:, 2] += random.uniform(-0.03, 0.03, 2) * np.linalg.norm(points[0] - points[1]) * 2
    moved = cv2.warpAffine(inner, move, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    mask = face_mask(points, (height, width), random)[..., None]
    return np.asarray(outer + (moved - outer) * mask, np.float32).clip(0.0, 255.0)


def face_mask(points: Points, size: tuple[int, int], random: np.random.Generator) -> NDArray[np.float32]:
    """Return a soft mask [H, W] in [0, 1] over the face or a part of it, its outline bent at random."""
    left, right, nose, mouth = points[:4]
    across, down = right - left, mouth - (left + right) / 2

    def some(low: float, high: float) -> np.float32:
        return np.float32(random.uniform(low, high))

    brows = [eye - some(0.4, 0.9) * down for eye in (left, right)]
    cheeks = [left - some(0.25, 0.5) * across, right + some(0.25, 0.5) * across]
    jaw = [mouth + side * some(0.5, 0.8) * across + some(0.0, 0.3) * down for side in (np.float32(-1), np.float32(1))]
    chin = mouth + some(0.4, 0.8) * down
    whole = [*brows, *cheeks, *jaw, chin]
    lower, upper = [*cheeks, *jaw, chin, nose - some(0.1, 0.4) * down], [*brows, *cheeks, nose + some(-0.2, 0.3) * down]
    outline = (whole, whole, lower, upper)[int(random.integers(4))]
    filled = np.zeros(size, np.float32)
    cv2.fillConvexPoly(filled, cv2.convexHull(np.round(outline).astype(np.int32)), 1.0)
    span = float(np.linalg.norm(across))
    grid = np.mgrid[: size[0], : size[1]].astype(np.float32)
    waves = random.standard_normal((2, *size), dtype=np.float32)
    bends = [cv2.GaussianBlur(wave, (0, 0), max(2.0, span * float(some(0.15, 0.35)))) for wave in waves]
    y, x = (
        axis + some(0.02, 0.1) * np.float32(span) * bend / bend.std() for axis, bend in zip(grid, bends, strict=True)
    )
    bent = cv2.remap(filled, x, y, cv2.INTER_LINEAR)
    soft = cv2.GaussianBlur(bent, (0, 0), 0.5 + span * float(some(0.02, 0.12)))
    return np.asarray(soft, np.float32) * np.float32(random.choice(SHARES))


def _change(pixels: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.float32]:
    """Change colour and light, and make sharper or coarser: as often in one direction as in the other."""
    height, width = pixels.shape[:2]
    shifted = (pixels + random.uniform(-10, 10, 3)).clip(0, 255).astype(np.uint8)
    hsv = cv2.cvtColor(shifted, cv2.COLOR_RGB2HSV).astype(np.float32)
    hsv[..., 0] = (hsv[..., 0] + random.uniform(-4, 4)) % 180
    hsv[..., 1] *= random.uniform(0.8, 1.2)
    changed = cv2.cvtColor(hsv.clip(0, 255).astype(np.uint8), cv2.COLOR_HSV2RGB).astype(np.float32)
    changed = (changed - 127) * np.float32(random.uniform(0.9, 1.1)) + np.float32(127 + random.uniform(-10, 10))
    if random.random() < 0.5:
        share = random.uniform(0.4, 0.9)
        small = cv2.resize(changed, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
        sharp_or_coarse = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    else:
        more = random.uniform(0.2, 0.7)
        sharp_or_coarse = cv2.addWeighted(changed, 1 + more, cv2.GaussianBlur(changed, (0, 0), 1.0), -more, 0)
    return np.asarray(sharp_or_coarse, np.float32).clip(0.0, 255.0)
