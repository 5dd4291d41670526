"""Small videos of still pictures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from edge_runtime.sources.opencv import cv2


def write_video(path: Path, pictures: Sequence[Image.Image], fps: float = 25.0, codec: str = "MJPG") -> Path:
    """Write a picture per frame, all of one size."""
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), fps, pictures[0].size)
    for picture in pictures:
        writer.write(np.asarray(picture)[:, :, ::-1])
    writer.release()
    return path
