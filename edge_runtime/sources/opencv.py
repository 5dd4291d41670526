"""OpenCV as the runtime uses it: quiet, safe with every file name, and with Pillow's pictures."""

import contextlib
import functools
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

# Before the import: FFmpeg and V4L2 would otherwise write their own lines between ours.
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
os.environ.setdefault("OPENCV_VIDEOIO_DEBUG", "0")

import cv2
import numpy as np
from PIL import Image

from edge_runtime.errors import SourceError
from edge_runtime.sources.reconnect import Load
from edge_runtime.sources.view import Glance, glance_size

__all__ = ["CvCapture", "CvView", "cv2", "openable", "picture_of"]


@contextlib.contextmanager
def openable(path: Path) -> Iterator[str]:
    """Yield a name under which OpenCV can open the file, to read or to write.

    A name that is not UTF-8 crashes OpenCV, so it gets a link with a plain name. FFmpeg reads what is before a colon as
    a protocol, unless the path is absolute.
    """
    absolute = path.absolute()
    try:
        str(absolute).encode()
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory() as folder:
            link = Path(folder, "video" + path.suffix.encode("ascii", "ignore").decode())
            link.symlink_to(absolute)
            yield str(link)
    else:
        yield str(absolute)


def picture_of(image: "cv2.typing.MatLike", aspect: float = 1.0) -> Image.Image:
    """Return OpenCV's picture, uint8 [H, W, 3] BGR or [H, W] grey, as RGB with square pixels.

    `aspect` is the width of a pixel by its height; the pixels' shorter side is enlarged.
    """
    height, width = image.shape[:2]
    if image.ndim == 2 or image.shape[2] == 1:
        picture = Image.fromarray(image.reshape(image.shape[:2])).convert("RGB")
    else:
        picture = Image.frombuffer("RGB", (width, height), np.ascontiguousarray(image), "raw", "BGR", 0, 1)
    if aspect == 1.0:
        return picture
    return picture.resize((round(width * max(1.0, aspect)), round(height * max(1.0, 1.0 / aspect))))


class CvView:
    """OpenCV's picture, see `picture_of`, converted as far as needed."""

    def __init__(self, image: "cv2.typing.MatLike", aspect: float = 1.0) -> None:
        self._image, self._aspect = image, aspect

    @functools.cached_property
    def _picture(self) -> Image.Image:
        return picture_of(self._image, self._aspect)

    @functools.cached_property
    def _pixels(self) -> Image.Image:
        height, width = self._image.shape[:2]
        if self._aspect != 1.0 or self._image.ndim == 2 or self._image.shape[2] == 1:
            return self._picture
        four = cv2.cvtColor(self._image, cv2.COLOR_BGR2RGBA)
        return Image.frombuffer("RGBX", (width, height), four, "raw", "RGBX", 0, 1)

    def __call__(self) -> Image.Image:
        """Return the picture as RGB."""
        return self._picture

    def pixels(self) -> Image.Image:
        """Return the picture as RGBX, which Pillow takes without copying; it resizes each channel as in RGB."""
        return self._pixels

    def glance(self) -> Glance:
        """Return the small grey copy, from few samples of the green channel."""
        height, width = self._image.shape[:2]
        size = (round(width * max(1.0, self._aspect)), round(height * max(1.0, 1.0 / self._aspect)))
        small = glance_size(size)
        step = max(1, max(width, height) // max(small))
        # Reading every row would take most of the time.
        samples = self._image[step // 2 :: step, :: max(1, step // 2)]
        samples = samples if samples.ndim == 2 else samples[:, :, samples.shape[2] // 2]
        return Glance(np.asarray(cv2.resize(samples, small, interpolation=cv2.INTER_AREA), np.uint8), size)


def pixel_aspect(capture: cv2.VideoCapture) -> float:
    """Return width by height of a pixel, as a video is shown: OpenCV turns it upright, but not its pixels' aspect."""
    wide, high = capture.get(cv2.CAP_PROP_SAR_NUM), capture.get(cv2.CAP_PROP_SAR_DEN)
    if wide <= 0.0 or high <= 0.0 or not 0.1 < wide / high < 10.0:
        return 1.0
    turned = capture.get(cv2.CAP_PROP_ORIENTATION_META) % 180 == 90
    return high / wide if turned else wide / high


class CvCapture:
    """A camera or stream that OpenCV has opened; SourceError if it can't."""

    def __init__(self, name: str, address: str, backend: int, settings: Sequence[int] = (), hint: str = "") -> None:
        self._name = name
        self.capture = cv2.VideoCapture(address, backend, list(settings))
        if not self.capture.isOpened():
            raise SourceError(f"{name}: can't be opened{hint}")
        self._aspect = pixel_aspect(self.capture)

    def read(self) -> Load:
        """Wait for the next frame; raises SourceError if there is none, as for a camera that is gone but "opened"."""
        return CvView(self.image(), self._aspect)

    def image(self) -> "cv2.typing.MatLike":
        """Return the next frame as OpenCV gives it; see `read`."""
        read, image = self.capture.read()
        if not read or image is None:
            raise SourceError(f"{self._name}: gives no frame")
        return image

    def close(self) -> None:
        """Release the device or connection."""
        self.capture.release()
