"""OpenCV as the runtime uses it: quiet, and its pictures as Pillow's."""

import os

# Before the import: FFmpeg and V4L2 would otherwise write their own lines between ours.
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
os.environ.setdefault("OPENCV_VIDEOIO_DEBUG", "0")

import cv2
import numpy as np
from PIL import Image

__all__ = ["cv2", "picture_of"]


def picture_of(image: "cv2.typing.MatLike") -> Image.Image:
    """Return OpenCV's picture, uint8 [H, W, 3] BGR or [H, W] grey, as RGB."""
    if image.ndim == 2 or image.shape[2] == 1:
        return Image.fromarray(image.reshape(image.shape[:2])).convert("RGB")
    height, width = image.shape[:2]
    return Image.frombuffer("RGB", (width, height), np.ascontiguousarray(image), "raw", "BGR", 0, 1)
