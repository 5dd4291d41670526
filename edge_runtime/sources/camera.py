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
from edge_runtime.sources.mjpeg import JpegView
from edge_runtime.sources.opencv import CvCapture, CvView, cv2, openable
from edge_runtime.sources.reconnect import LiveSource, Load

DEVICES = Path("/dev")
NAMES = Path("/sys/class/video4linux")
CHECK = "check the cable, that you are in the group `video`, and that no other program uses it"

QUERYCAP, HAS_DEVICE_CAPS, CAPTURES = 0x80685600, 0x80000000, 0x1 | 0x1000
"""From linux/videodev2.h: VIDIOC_QUERYCAP, which fills 104 bytes of v4l2_capability; V4L2_CAP_DEVICE_CAPS, for nodes
with capabilities of their own; V4L2_CAP_VIDEO_CAPTURE and its _MPLANE."""


MJPG = cv2.VideoWriter.fourcc(*"MJPG")
"""Frames that are JPEGs."""


def list_cameras() -> list[tuple[str, str]]:
    """Return device file and name of each camera of this machine by number, without nodes that only give metadata."""
    nodes = [node for node in DEVICES.glob("video*") if re.fullmatch(r"video\d+", node.name)]
    cameras = []
    for node in sorted(nodes, key=lambda node: int(node.name[5:])):
        note = ""
        answer = bytearray(104)
        try:
            file = os.open(node, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                fcntl.ioctl(file, QUERYCAP, answer)
            finally:
                os.close(file)
            device, this_node = struct.unpack_from("=II", answer, 84)
            if not (this_node if device & HAS_DEVICE_CAPS else device) & CAPTURES:
                continue
        except PermissionError:
            note = " (no permission; group video)"
        except OSError as error:
            if error.errno == errno.ENOTTY:  # Not a V4L2 device. Any other error: a camera, in use for example.
                continue
        try:
            name = (NAMES / node.name / "name").read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            name = "unknown"
        cameras.append((str(node), name + note))
    return cameras


def cameras_text() -> str:
    """Return the cameras of this machine as one line."""
    found = list_cameras()
    return "cameras here: " + (", ".join(f"{node} {name}" for node, name in found) if found else "none")


class Camera(CvCapture):
    """An open camera."""

    def __init__(self, device: str, options: SourceOptions) -> None:
        if not Path(device).exists():
            raise SourceError(f"no camera {device}")
        os.environ["OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT"] = str(max(1, round(options.stall_timeout_s)))
        with openable(Path(device)) as name:
            super().__init__(device, name, cv2.CAP_V4L2)
        if options.mjpg:
            self.capture.set(cv2.CAP_PROP_FOURCC, MJPG)
        requested = (
            (cv2.CAP_PROP_FRAME_WIDTH, options.width),
            (cv2.CAP_PROP_FRAME_HEIGHT, options.height),
            (cv2.CAP_PROP_FPS, options.fps),
            (cv2.CAP_PROP_BUFFERSIZE, 2),
        )
        for setting, value in requested:
            if value is not None:
                self.capture.set(setting, value)
        # A compressed frame is then decoded by its view, as far as needed.
        is_mjpg = self.capture.get(cv2.CAP_PROP_FOURCC) == MJPG
        self._compressed = is_mjpg and self.capture.set(cv2.CAP_PROP_CONVERT_RGB, 0)

    def read(self) -> Load:
        """Wait for the next frame; see `CvCapture.read`."""
        image = self.image()
        # OpenCV gives a compressed frame as one row of bytes.
        return JpegView(image.tobytes()) if self._compressed and image.shape[0] == 1 else CvView(image)


class CameraSource(LiveSource):
    """A camera."""

    def prove(self) -> None:
        """Raise SourceError unless the camera gives a frame, with the cameras that exist and what to check."""
        try:
            super().prove()
        except SourceError as error:
            raise SourceError(f"{error}; {cameras_text()}; {CHECK}") from None


def camera_source(name: str | int, options: SourceOptions) -> CameraSource:
    """Return the camera with number or device file `name`, not opened yet."""
    text = str(name)
    device = f"/dev/video{text}" if text.isdigit() else text
    return CameraSource(device, functools.partial(Camera, device, options), options)
