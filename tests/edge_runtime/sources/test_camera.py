"""A camera's frames, with a stand-in for OpenCV's V4L2 back end (modules/videoio/src/cap_v4l.cpp)."""

import io

import numpy as np
import pytest
from PIL import Image

from edge_runtime.errors import PictureError
from edge_runtime.sources import SourceOptions
from edge_runtime.sources.camera import MJPG, Camera
from edge_runtime.sources.opencv import cv2


class V4l2:
    """A camera of 640×360 that can send JPEGs or raw frames, as OpenCV hands them out."""

    formats = (0, MJPG)

    def __init__(self, *_):
        self.properties = {cv2.CAP_PROP_FOURCC: 0, cv2.CAP_PROP_CONVERT_RGB: 1}
        random = np.random.default_rng(1)
        self.scene = np.repeat(np.repeat(random.integers(0, 256, (36, 64, 3), np.uint8), 10, 0), 10, 1)
        file = io.BytesIO()
        Image.fromarray(self.scene[:, :, ::-1]).save(file, "JPEG", quality=90)
        self.jpeg = file.getvalue()

    def isOpened(self):  # noqa: N802
        return True

    def set(self, name, value):
        if name == cv2.CAP_PROP_FOURCC and value not in self.formats:
            return False
        self.properties[name] = value
        return True

    def get(self, name):
        return float(self.properties.get(name, 0))

    def read(self):
        if self.get(cv2.CAP_PROP_FOURCC) != MJPG:
            return True, self.scene
        row = np.frombuffer(self.jpeg, np.uint8)
        return True, cv2.imdecode(row, cv2.IMREAD_COLOR) if self.get(cv2.CAP_PROP_CONVERT_RGB) else row[None]

    def release(self):
        pass


@pytest.fixture
def opened(monkeypatch, tmp_path):
    """Open the stand-in as a camera."""
    monkeypatch.setattr(cv2, "VideoCapture", V4l2)
    device = tmp_path / "video0"
    device.touch()
    return lambda **options: Camera(str(device), SourceOptions(**options))


def test_a_jpeg_from_a_camera_is_decoded_as_far_as_needed(opened, monkeypatch):
    camera = opened()
    expected = cv2.imdecode(np.frombuffer(camera.capture.jpeg, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
    decoded, decode = [], cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda row, flags: decoded.append(flags) or decode(row, flags))
    view = camera.read()
    assert decoded == []
    glance = view.glance()
    assert (glance.size, glance.grey.shape) == ((640, 360), (180, 320))
    assert decoded == [cv2.IMREAD_REDUCED_GRAYSCALE_2 | cv2.IMREAD_IGNORE_ORIENTATION]
    assert np.array_equal(np.asarray(view.pixels())[:, :, :3], expected)
    assert np.array_equal(np.asarray(view()), expected)


def test_raw_frames_are_converted_by_opencv(opened, monkeypatch):
    monkeypatch.setattr(V4l2, "formats", (0,))
    for camera in (opened(), opened(mjpg=False)):
        assert camera.capture.get(cv2.CAP_PROP_CONVERT_RGB) == 1
        assert np.array_equal(np.asarray(camera.read()()), camera.capture.scene[:, :, ::-1])


def test_a_broken_jpeg_is_an_error_of_its_frame(opened):
    camera = opened()
    whole = camera.capture.jpeg
    for broken in (b"\0" * 100, whole[: len(whole) // 2]):
        camera.capture.jpeg = broken
        view = camera.read()
        for step in (view.glance, view.pixels, view):
            with pytest.raises(PictureError):
                step()
    camera.capture.jpeg = whole
    assert camera.read()().size == (640, 360)
