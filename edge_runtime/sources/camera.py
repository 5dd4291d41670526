"""Cameras through V4L2, read by OpenCV."""

import errno
import fcntl
import functools
import os
import re
import struct
from pathlib import Path

from edge_runtime.errors import SourceError
from edge_runtime.sources import SourceOptions
from edge_runtime.sources.live import LiveSource, Load
from edge_runtime.sources.opencv import cv2, picture_of

DEVICES = Path("/dev")
NAMES = Path("/sys/class/video4linux")
CHECK = "check the cable, that you are in the group `video`, and that no other program holds it"

QUERYCAP = 0x80685600
"""VIDIOC_QUERYCAP of linux/videodev2.h; it fills a struct v4l2_capability of 104 bytes."""

CAPTURES = 0x1 | 0x1000
"""V4L2_CAP_VIDEO_CAPTURE and its multi-planar kind."""

OF_THE_NODE = 0x80000000
"""V4L2_CAP_DEVICE_CAPS: what this node can do is told beside what the whole device can."""


def list_cameras() -> list[tuple[str, str]]:
    """Return device file and name of each camera of this machine, in the order of their numbers.

    Nodes that give no pictures are left out: most webcams have one for metadata too.
    """
    nodes = [node for node in DEVICES.glob("video*") if re.fullmatch(r"video\d+", node.name)]
    nodes.sort(key=lambda node: int(node.name[5:]))
    notes = {node: _note(node) for node in nodes}
    return [(str(node), _name(node) + note) for node, note in notes.items() if note is not None]


def _note(node: Path) -> str | None:
    """Return what must be said beside a camera's name; None for a node that is no camera."""
    try:
        return "" if _gives_pictures(node) else None
    except PermissionError:
        return " (no permission; group video)"
    except OSError as error:
        # One that is held by another program is a camera all the same; a file of another kind is none.
        return None if error.errno == errno.ENOTTY else ""


def _gives_pictures(node: Path) -> bool:
    answer = bytearray(104)
    file = os.open(node, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(file, QUERYCAP, answer)
    finally:
        os.close(file)
    device, this_node = struct.unpack_from("=II", answer, 84)
    return bool((this_node if device & OF_THE_NODE else device) & CAPTURES)


def _name(node: Path) -> str:
    try:
        return (NAMES / node.name / "name").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "unknown"


def cameras_text() -> str:
    """Return the cameras of this machine as one line."""
    found = list_cameras()
    return "cameras here: " + (", ".join(f"{node} {name}" for node, name in found) if found else "none")


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
