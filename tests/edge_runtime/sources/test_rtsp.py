"""An RTSP camera: a real server from Debian's packages, killed and started again."""

import subprocess
import threading
import time
from pathlib import Path

import pytest

from edge_runtime.judging.results import SourceState
from edge_runtime.sources import Frame, Gap, SourceOptions, open_source

DEBIANS_PYTHON = "/usr/bin/python3"
SERVER = Path(__file__).with_name("rtsp_server.py")
BINDINGS = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"


class RtspCamera:
    """A camera that can be switched off and on again at the same address."""

    def __init__(self):
        self.port = "0"
        self.switch_on(320, 240)
        self.url = f"rtsp://127.0.0.1:{self.port}/door"

    def switch_on(self, width, height):
        command = [DEBIANS_PYTHON, str(SERVER), self.port, str(width), str(height)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.port = self._process.stdout.readline().strip()

    def switch_off(self):
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def camera():
    if subprocess.run([DEBIANS_PYTHON, "-c", BINDINGS], capture_output=True).returncode:
        pytest.skip("needs GStreamer's RTSP server")
    camera = RtspCamera()
    yield camera
    camera.switch_off()


def next_of(kind, items, deadline_s=60.0):
    """Return the next item of a kind; a test that hangs is a test that fails."""
    ends = time.monotonic() + deadline_s
    for item in items:
        if isinstance(item, kind):
            return item
        assert time.monotonic() < ends
    raise AssertionError("the source ended")


@pytest.mark.slow
def test_a_lost_rtsp_camera_is_reopened_at_any_size(camera):
    stop, source = threading.Event(), open_source(camera.url, SourceOptions(stall_timeout_s=2.0))
    items = source.frames(stop)
    before = next_of(Frame, items)
    red, _, blue = before.load().getpixel((100, 100))
    assert (source.live, before.load().size, red > 180, blue < 80) == (True, (320, 240), True, True)
    camera.switch_off()
    assert next_of(Gap, items).state is SourceState.LOST
    absent = next_of(Gap, open_source(camera.url, SourceOptions(stall_timeout_s=2.0)).frames(stop))
    assert absent.state is SourceState.LOST
    assert absent.error.startswith(f"{camera.url}: can't be reached")
    camera.switch_on(640, 360)
    after = next_of(Frame, items)
    stop.set()
    assert after.index > before.index
    assert after.load().size == (640, 360)
