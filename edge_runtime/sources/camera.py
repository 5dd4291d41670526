"""Cameras through V4L2, read by OpenCV."""

import functools
import os
import re
from pathlib import Path

from edge_runtime.errors import SourceError
from edge_runtime.sources import SourceOptions
from edge_runtime.sources.live import LiveSource, Load
from edge_runtime.sources.opencv import cv2, picture_of

DEVICES = Path("/dev")
NAMES = Path("/sys/class/video4linux")
CHECK = "check the cable, that you are in the group `video`, and that no other program holds it"


def list_cameras() -> list[tuple[str, str]]:
    """Return device file and name of each camera node of this machine, in the order of their numbers."""
    nodes = [node for node in DEVICES.glob("video*") if re.fullmatch(r"video\d+", node.name)]
    return [(str(node), _name(node)) for node in sorted(nodes, key=lambda node: int(node.name[5:]))]


def _name(node: Path) -> str:
    try:
        return (NAMES / node.name / "name").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "unknown"


def cameras_text() -> str:
    """Return the cameras of this machine as one line."""
    found = list_cameras()
    return "cameras here: " + (", ".join(f"{node} ({name})" for node, name in found) if found else "none")


class Camera:
    """An open camera."""

    def __init__(self, device: str, options: SourceOptions) -> None:
        seconds = max(1, round(options.stall_timeout_s))
        os.environ["OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT"] = str(seconds)
        self.device = device
        if not Path(device).exists():
            raise SourceError(f"no camera {device}")
        self._capture = cv2.VideoCapture(device, cv2.CAP_V4L2)
        if not self._capture.isOpened():
            raise SourceError(f"{device}: can't be opened")
        self._ask(options)

    def _ask(self, options: SourceOptions) -> None:
        if options.mjpg:
            self._capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
        wishes = (
            (cv2.CAP_PROP_FRAME_WIDTH, options.width),
            (cv2.CAP_PROP_FRAME_HEIGHT, options.height),
            (cv2.CAP_PROP_FPS, options.fps),
            (cv2.CAP_PROP_BUFFERSIZE, 2),
        )
        for name, value in wishes:
            if value is not None:
                self._capture.set(name, value)

    def read(self) -> Load:
        """Wait for the next frame; only a frame proves a camera, since OpenCV calls one that is gone opened."""
        read, image = self._capture.read()
        if not read or image is None:
            raise SourceError(f"{self.device}: gives no frame")
        return functools.partial(picture_of, image)

    def close(self) -> None:
        """Give the device back."""
        self._capture.release()


class CameraSource(LiveSource):
    """A camera, whose absence is told with what to check."""

    def prove(self) -> None:
        """Open the camera and take a frame; raises SourceError with the cameras that exist."""
        try:
            super().prove()
        except SourceError as error:
            raise SourceError(f"{error}; {cameras_text()}; {CHECK}") from None


def camera_source(name: str | int, options: SourceOptions) -> CameraSource:
    """Return the camera of number or device file `name`, not opened yet."""
    text = str(name)
    device = f"/dev/video{text}" if text.isdigit() else text
    return CameraSource(device, functools.partial(Camera, device, options), options)
