import http.server
import io
import os
import socket
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edge_runtime.errors import SourceError
from edge_runtime.judging.results import SourceState
from edge_runtime.sources import Frame, Gap, SourceOptions, open_source
from edge_runtime.sources.mjpeg import HttpCamera, JpegSplitter, StandardInput, decode, public_name

BOUNDARY = b"--frame\r\nContent-Type: image/jpeg\r\n\r\n"


def jpeg_of(size=(64, 48), seed=1, **options):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", **options)
    return file.getvalue()


JPEGS = [jpeg_of(), jpeg_of((17, 9), 2, progressive=True), jpeg_of((100, 80), 3, quality=95, optimize=True)]


@given(st.lists(st.sampled_from(JPEGS), max_size=6), st.integers(1, 5000))
@settings(max_examples=50, deadline=None)
def test_pictures_are_found_however_the_stream_is_cut(jpegs, block):
    stream = b"".join(BOUNDARY + jpeg + b"\r\n" for jpeg in jpegs)
    splitter = JpegSplitter()
    found = [jpeg for at in range(0, len(stream), block) for jpeg in splitter.feed(stream[at : at + block])]
    assert found == jpegs


def test_a_thumbnail_inside_a_picture_is_not_taken_for_a_picture():
    exif = Image.Exif()
    exif[0x9286] = jpeg_of((8, 8), 9)
    jpeg = jpeg_of(exif=exif)
    assert jpeg.count(b"\xff\xd8\xff") == 2
    assert JpegSplitter().feed(jpeg) == [jpeg]


def test_a_picture_that_broke_off_is_skipped_and_the_next_one_found():
    cut = JPEGS[0][: len(JPEGS[0]) // 2]
    assert JpegSplitter().feed(cut + JPEGS[1]) == [JPEGS[1]]


def test_endless_garbage_takes_no_endless_memory():
    splitter = JpegSplitter(longest=10_000)
    for _ in range(100):
        splitter.feed(b"\xff\xd8\xff\xe0\xff\xff" + b"\x55" * 5000)
    assert len(splitter._buffer) <= 10_000
    splitter.feed(b"\xff" * 9000)
    assert splitter.feed(b"\0" * 9000 + JPEGS[0])[-1:] == [JPEGS[0]]


@given(st.lists(st.one_of(st.binary(max_size=200), st.sampled_from(JPEGS)), max_size=8), st.randoms())
@settings(max_examples=100, deadline=None)
def test_no_bytes_make_the_splitter_fail(parts, random):
    stream = bytearray(b"".join(parts))
    for _ in range(min(len(stream), 5)):
        stream[random.randrange(len(stream))] = random.randrange(256)
    for jpeg in JpegSplitter().feed(bytes(stream)):
        assert jpeg.startswith(b"\xff\xd8\xff")
        assert jpeg.endswith(b"\xff\xd9")


class Camera(http.server.ThreadingHTTPServer):
    """An MJPEG camera on loopback whose behaviour can be changed while it runs."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port=0):
        self.jpeg, self.mode, self.sent, self.asked = JPEGS[0], "pictures", 0, []
        super().__init__(("127.0.0.1", port), Handler)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        self.connections = []

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}/mjpeg"

    def handle_error(self, request, client_address):
        """Hang-ups are what these tests are about."""

    def kill(self):
        self.mode = "dead"
        self.shutdown()
        self.server_close()
        time.sleep(0.1)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        camera = self.server
        camera.asked.append(dict(self.headers))
        if camera.mode == "refuses":
            self.send_error(401)
            return
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        while camera.mode != "dead":
            if camera.mode == "pictures":
                self.wfile.write(BOUNDARY + camera.jpeg + b"\r\n")
                camera.sent += 1
            elif camera.mode == "garbage":
                self.wfile.write(os.urandom(500))
            elif camera.mode == "ends":
                return
            time.sleep(0.02)

    def log_message(self, *_):
        pass


@pytest.fixture
def camera():
    camera = Camera()
    yield camera
    camera.kill()


class Watcher:
    """Reads a live source in a thread of its own, as the pipeline does."""

    def __init__(self, source):
        self.items, self._stop = [], threading.Event()
        self._thread = threading.Thread(target=self._read, args=(source,), daemon=True)
        self._thread.start()

    def _read(self, source):
        self.items.extend(iter_until(source, self._stop, self.items))

    def sizes(self):
        return [item.load().size for item in self.items if isinstance(item, Frame)]

    def gaps(self):
        return [item for item in self.items if isinstance(item, Gap)]

    def frames(self):
        return [item for item in self.items if isinstance(item, Frame)]

    def until(self, condition, seconds=15.0):
        end = time.monotonic() + seconds
        while not condition() and time.monotonic() < end:
            time.sleep(0.02)
        assert condition(), (len(self.frames()), self.gaps()[-3:])

    def stop(self):
        self._stop.set()
        self._thread.join(5.0)
        assert not self._thread.is_alive()


def iter_until(source, stop, items):
    for item in source.frames(stop):
        items.append(item)
    return ()


@pytest.fixture
def watch():
    watchers = []

    def start(address, **options):
        watchers.append(Watcher(open_source(address, SourceOptions(**options))))
        return watchers[-1]

    yield start
    for watcher in watchers:
        watcher.stop()


def test_a_camera_that_goes_away_is_opened_again_and_may_come_back_with_another_size(camera, watch):
    seen = watch(camera.address, stall_timeout_s=1.0)
    seen.until(lambda: len(seen.frames()) >= 3)
    camera.kill()
    seen.until(lambda: [gap.state for gap in seen.gaps()] == [SourceState.LOST])
    count = len(seen.frames())
    time.sleep(0.5)
    assert len(seen.frames()) == count
    again = Camera(camera.server_port)
    again.jpeg = JPEGS[2]
    back = time.monotonic()
    seen.until(lambda: len(seen.frames()) > count)
    assert seen.frames()[count].taken - back < 5.0
    seen.until(lambda: seen.sizes()[-1] == (100, 80))
    assert [gap.state for gap in seen.gaps()] == [SourceState.LOST]
    assert [frame.index for frame in seen.frames()] == list(range(len(seen.frames())))
    again.kill()


def test_a_camera_that_stalls_is_lost_and_found_again(camera, watch):
    seen = watch(camera.address, stall_timeout_s=0.6)
    seen.until(lambda: len(seen.frames()) >= 2)
    camera.mode = "silent"
    seen.until(lambda: len(seen.gaps()) == 1)
    assert "no frame for 0.6 s" in seen.gaps()[0].error or "timed out" in seen.gaps()[0].error
    count = len(seen.frames())
    camera.mode = "pictures"
    seen.until(lambda: len(seen.frames()) > count)


def test_a_camera_that_sends_garbage_is_lost_without_a_made_up_frame(camera, watch):
    seen = watch(camera.address, stall_timeout_s=0.6)
    seen.until(lambda: len(seen.frames()) >= 2)
    camera.mode = "garbage"
    seen.until(lambda: len(seen.gaps()) == 1)
    assert set(seen.sizes()) == {(64, 48)}
    camera.mode = "pictures"
    count = len(seen.frames())
    seen.until(lambda: len(seen.frames()) > count)


def test_a_source_that_stays_lost_is_given_up_where_that_is_wanted(camera, watch):
    seen = watch(camera.address, stall_timeout_s=0.5, give_up_after_s=1.0)
    seen.until(lambda: len(seen.frames()) >= 1)
    camera.kill()
    seen.until(lambda: seen.gaps()[-1:] and seen.gaps()[-1].state == SourceState.ENDED)
    assert seen.gaps()[-1].failed


def test_readers_of_a_lost_camera_do_not_pile_up(camera, watch):
    before = threading.active_count()
    seen = watch(camera.address, stall_timeout_s=0.5)
    for mode in ("silent", "pictures", "garbage", "pictures", "ends", "pictures"):
        count, gaps = len(seen.frames()), len(seen.gaps())
        camera.mode = mode
        seen.until(lambda c=count, g=gaps, m=mode: len(seen.frames()) > c if m == "pictures" else len(seen.gaps()) > g)
    mine = [thread.name for thread in threading.enumerate() if thread.name.startswith("reader of")]
    assert len(mine) <= 3
    assert threading.active_count() < before + 12


def test_a_password_is_sent_to_the_camera_and_never_shown(camera):
    address = camera.address.replace("http://", "http://me:s%40cret@")
    opened = HttpCamera(address, SourceOptions())
    opened.read()
    opened.close()
    assert camera.asked[0]["Authorization"] == "Basic bWU6c0BjcmV0"
    assert "cret" not in open_source(address).name
    assert public_name("rtsp://me:secret@door:554/a?b") == "rtsp://door:554/a?b"


@pytest.mark.parametrize(("mode", "says"), [("refuses", "401"), ("ends", "ended")])
def test_a_camera_that_can_not_be_used_says_why_at_the_start(camera, mode, says):
    camera.mode = mode
    with pytest.raises(SourceError, match=says):
        open_source(camera.address, SourceOptions()).prove()


def test_a_camera_that_does_not_answer_is_not_waited_for_as_long_as_one_that_pauses(camera, monkeypatch):
    monkeypatch.setattr("edge_runtime.sources.mjpeg.CONNECT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(SourceError, match="can't be reached"):
            HttpCamera(f"http://127.0.0.1:{silent.getsockname()[1]}/", SourceOptions(stall_timeout_s=20.0))
        assert time.monotonic() - began < 5.0
    camera.mode = "silent"
    opened = HttpCamera(camera.address, SourceOptions(stall_timeout_s=20.0))
    later = threading.Timer(1.0, lambda: setattr(camera, "mode", "pictures"))
    later.start()
    assert opened.read()().size == (64, 48)
    opened.close()


def test_nobody_at_the_address_is_told_at_the_start(camera):
    camera.kill()
    with pytest.raises(SourceError, match="can't be reached"):
        open_source(camera.address, SourceOptions()).prove()


@pytest.fixture
def piped(monkeypatch):
    """Puts bytes onto standard input."""
    ends = []

    def pipe(data):
        read, write = os.pipe()
        threading.Thread(target=lambda: (os.write(write, data), os.close(write)), daemon=True).start()
        original = os.read
        monkeypatch.setattr(os, "read", lambda number, size: original(read if number == 0 else number, size))
        ends.append(read)

    yield pipe
    for end in ends:
        os.close(end)


def test_every_picture_on_standard_input_is_given_in_order(piped):
    piped(b"".join(JPEGS))
    frames = list(StandardInput().frames(threading.Event()))
    assert [frame.load().size for frame in frames] == [(64, 48), (17, 9), (100, 80)]


def test_standard_input_without_a_picture_fails(piped):
    piped(b"hello")
    (gap,) = StandardInput().frames(threading.Event())
    assert gap.failed


def test_a_picture_from_a_stream_must_be_a_jpeg():
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    from edge_runtime.errors import PictureError

    with pytest.raises(PictureError):
        decode(file.getvalue())
