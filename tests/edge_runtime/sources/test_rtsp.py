"""An RTSP camera: a real server from Debian's packages, killed and started again."""

import itertools
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_runtime.judging.results import SourceState
from edge_runtime.sources import Frame, Gap, SourceOptions, open_source

DEBIANS_PYTHON = "/usr/bin/python3"
SERVER = Path(__file__).with_name("rtsp_server.py")
pytestmark = pytest.mark.slow

BINDINGS = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"


class RtspCamera:
    """A camera that can be switched off and on again at the same address."""

    def __init__(self) -> None:
        self.port = "0"
        self.switch_on(320, 240)
        self.url = f"rtsp://127.0.0.1:{self.port}/door"

    def switch_on(self, width: int, height: int) -> None:
        command = [DEBIANS_PYTHON, str(SERVER), self.port, str(width), str(height)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = self._process.stdout.readline().strip()

    def switch_off(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.fixture(scope="session")
def _bindings() -> None:
    if subprocess.run([DEBIANS_PYTHON, "-c", BINDINGS], capture_output=True).returncode:
        pytest.skip("needs GStreamer's RTSP server")


@pytest.fixture
def camera(_bindings) -> Iterator[RtspCamera]:
    camera = RtspCamera()
    yield camera
    camera.switch_off()


def next_of(kind: type, items: Iterator[Frame | Gap], deadline_s: float = 60.0) -> Frame | Gap:
    """Return the next item of a kind; a test that hangs is a test that fails."""
    ends = time.monotonic() + deadline_s
    for item in items:
        if isinstance(item, kind):
            return item
        assert time.monotonic() < ends
    raise AssertionError("the source ended")


def test_an_rtsp_camera_is_read(camera) -> None:
    stop = threading.Event()
    source = open_source(camera.url, SourceOptions())
    frames = list(itertools.islice(source.frames(stop), 3))
    stop.set()
    assert source.live
    assert [frame.load().size for frame in frames] == [(320, 240)] * 3
    red, _, blue = frames[0].load().getpixel((100, 100))
    assert (red > 180, blue < 80) == (True, True)


def test_a_lost_rtsp_camera_is_reopened_at_any_size(camera) -> None:
    stop = threading.Event()
    items = open_source(camera.url, SourceOptions(stall_timeout_s=2.0)).frames(stop)
    before = next_of(Frame, items)
    camera.switch_off()
    gap = next_of(Gap, items)
    assert gap.state == SourceState.LOST
    camera.switch_on(640, 360)
    after = next_of(Frame, items)
    stop.set()
    assert after.index > before.index
    assert after.load().size == (640, 360)


def test_an_address_without_a_camera_is_lost(camera) -> None:
    camera.switch_off()
    stop = threading.Event()
    gap = next(open_source(camera.url, SourceOptions(stall_timeout_s=2.0)).frames(stop))
    stop.set()
    assert isinstance(gap, Gap)
    assert gap.state == SourceState.LOST
    assert camera.url in (gap.error or "")
    assert "\n" not in (gap.error or "")
