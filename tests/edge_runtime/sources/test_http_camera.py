"""Cameras over HTTP: a real server on loopback, which changes its behaviour while it is watched."""

import base64
import hashlib
import http.server
import os
import re
import socket
import threading
import time

import pytest
from helpers.jpegs import BOUNDARY, JPEGS
from helpers.waiting import until

from edge_runtime.errors import SourceError
from edge_runtime.judging.results import SourceState
from edge_runtime.sources import Frame, Gap, SourceOptions, open_source
from edge_runtime.sources.address import parse_address, public_name
from edge_runtime.sources.http_camera import HttpCamera


class Camera(http.server.ThreadingHTTPServer):
    """A camera whose `mode` says what it sends; `asked` has the headers of every request."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port=0):
        self.jpeg, self.mode, self.sent, self.asked = JPEGS[0], "pictures", 0, []
        self.challenges, self.location = [], None
        super().__init__(("127.0.0.1", port), Handler)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

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
        camera.asked.append({"path": self.path, **self.headers})
        if camera.location:
            self.send_response(302)
            self.send_header("Location", camera.location)
            self.end_headers()
        elif camera.challenges and not self.allowed():
            self.send_response(401)
            for challenge in camera.challenges:
                self.send_header("WWW-Authenticate", challenge)
            self.end_headers()
        elif camera.mode == "refuses":
            self.send_error(401)
        elif camera.mode == "snapshot":
            self.send_response(200)
            self.send_header("Content-Type", "image/jpeg")
            self.send_header("Content-Length", str(len(camera.jpeg)))
            self.end_headers()
            self.wfile.write(camera.jpeg)
        elif camera.mode == "trickles":
            while camera.mode == "trickles":
                self.wfile.write(b"H")
                time.sleep(0.1)
        else:
            self.stream()

    def stream(self):
        camera = self.server
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

    def allowed(self):
        """Check an answer as user `me` with password `s@cret`, in our own words (RFC 7616, section 3.4.1)."""
        given = self.headers.get("Authorization", "")
        if given.startswith("Basic "):
            return base64.b64decode(given[6:]) == b"me:s@cret" and self.server.challenges[0].startswith("Basic")
        got = dict(re.findall(r'(\w+)="?([^",]*)"?', given))
        if not got:
            return False
        kind = hashlib.sha256 if got.get("algorithm") == "SHA-256" else hashlib.md5

        def digest(text):
            return kind(text.encode()).hexdigest()

        user, request = digest(f"me:{got['realm']}:s@cret"), digest(f"GET:{self.path}")
        middle = f"{got['nonce']}:{got['nc']}:{got['cnonce']}:auth" if "qop" in got else got["nonce"]
        return got["response"] == digest(f"{user}:{middle}:{request}") and got["uri"] == self.path

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
        self._thread = threading.Thread(target=lambda: self.items.extend(source.frames(self._stop)), daemon=True)
        self._thread.start()

    def gaps(self):
        return [item for item in self.items if isinstance(item, Gap)]

    def frames(self):
        return [item for item in self.items if isinstance(item, Frame)]

    def stop(self):
        self._stop.set()
        self._thread.join(5.0)
        assert not self._thread.is_alive()


@pytest.fixture
def watch():
    watchers = []

    def start(address, **options):
        watchers.append(Watcher(open_source(address, SourceOptions(**options))))
        return watchers[-1]

    yield start
    for watcher in watchers:
        watcher.stop()


def test_a_lost_camera_is_reopened_at_any_size(camera, watch):
    seen = watch(camera.address, stall_timeout_s=1.0)
    until(lambda: len(seen.frames()) >= 3)
    camera.kill()
    until(lambda: [gap.state for gap in seen.gaps()] == [SourceState.LOST])
    count = len(seen.frames())
    again = Camera(camera.server_port)
    again.jpeg = JPEGS[2]
    back = time.monotonic()
    until(lambda: len(seen.frames()) > count and seen.frames()[-1].load().size == (100, 80))
    assert seen.frames()[count].taken - back < 5.0
    assert len(seen.gaps()) == 1
    assert [frame.index for frame in seen.frames()] == list(range(len(seen.frames())))
    again.kill()


@pytest.mark.parametrize("mode", ["silent", "garbage"])
def test_a_camera_without_pictures_is_lost_and_found(camera, watch, mode):
    seen = watch(camera.address, stall_timeout_s=0.6)
    until(lambda: len(seen.frames()) >= 2)
    camera.mode = mode
    until(lambda: len(seen.gaps()) == 1)
    assert {frame.load().size for frame in seen.frames()} == {(64, 48)}
    camera.mode = "pictures"
    count = len(seen.frames())
    until(lambda: len(seen.frames()) > count)


def test_a_lost_camera_is_given_up_on_request(camera, watch):
    seen = watch(camera.address, stall_timeout_s=0.5, give_up_after_s=0.8)
    until(lambda: len(seen.frames()) >= 1)
    camera.kill()
    until(lambda: seen.gaps()[-1:] and seen.gaps()[-1].state is SourceState.ENDED)
    assert seen.gaps()[-1].failed


def test_readers_of_a_lost_camera_do_not_pile_up(camera, watch):
    before = threading.active_count()
    seen = watch(camera.address, stall_timeout_s=0.5)
    for mode in ("silent", "pictures", "garbage", "pictures", "ends", "pictures"):
        count, gaps = len(seen.frames()), len(seen.gaps())
        camera.mode = mode
        until(lambda c=count, g=gaps, m=mode: len(seen.frames()) > c if m == "pictures" else len(seen.gaps()) > g)
    readers = [thread for thread in threading.enumerate() if thread.name.startswith("reader of")]
    assert len(readers) <= 3
    assert threading.active_count() < before + 12


@pytest.mark.parametrize(
    ("challenges", "answer"),
    [
        (['Basic realm="x"'], "Basic bWU6c0BjcmV0"),
        (['Digest realm="x", nonce="n", qop="auth", algorithm=MD5'], "Digest"),
        (['Digest realm="x", nonce="n"'], "Digest"),
        (['Basic realm="x"', 'Digest realm="x", nonce="n", qop="auth,auth-int", algorithm=MD5, opaque="o"'], "Digest"),
        (['Digest realm="x", nonce="n", algorithm=MD5', 'Digest realm="x", nonce="n", algorithm=SHA-256'], "Digest"),
    ],
)
def test_a_password_is_given_as_the_camera_asks(camera, challenges, answer):
    camera.challenges = challenges
    opened = open_http(camera.address.replace("//", "//me:s%40cret@") + "?size=1")
    assert opened.read()().size == (64, 48)
    opened.close()
    first, second = camera.asked
    assert "Authorization" not in first
    assert second["Authorization"].startswith(answer)
    if "SHA-256" in challenges[-1]:
        assert "SHA-256" in second["Authorization"]


def open_http(address, **options):
    return HttpCamera(parse_address(address), SourceOptions(**options))


def test_a_wrong_password_is_given_only_once(camera):
    camera.challenges = ['Digest realm="x", nonce="n", qop="auth"']
    with pytest.raises(SourceError, match="401"):
        open_http(camera.address.replace("//", "//me:wrong@"))
    assert len(camera.asked) == 2


def test_another_host_never_gets_the_password(camera):
    other = Camera()
    camera.location, other.challenges = other.address.replace("127.0.0.1", "localhost"), ['Basic realm="x"']
    with pytest.raises(SourceError, match="401"):
        open_http(camera.address.replace("//", "//me:s%40cret@"))
    other.kill()
    assert all("Authorization" not in asked for asked in camera.asked + other.asked)


@pytest.mark.parametrize(
    "address",
    [
        "http://admin:Gar/ten7@127.0.0.1:1/v",
        "http://admin:12/Gar?ten7@door/v",
        "rtsp://admin:Gar?ten7@door/v",
        "rtsp://admin:Gar#ten7@door/v",
        "rtsp://admin:Gar[ten7@door/v",
        "rtsp://admin:Gar]ten7@door/v",
        "http://admin:Gar@ten7/x@door/v",
        "http://admin:Gar\udce9ten7@door/v",
        "http:/admin:Gar/ten7@door/v",
        "admin:Gar/ten7@door/v",
        "admin:Gar/ten7@door/snap.jpg",
        "admin:Gar[*]ten7@door/snap.jpg",
        "admin:Gar%s/ten7@door/snap.jpg" % ("x" * 300),
    ],
)
def test_a_password_is_never_shown(address):
    assert "ten7" not in public_name(address)
    with pytest.raises(SourceError) as caught:
        open_source(address, SourceOptions(stall_timeout_s=0.5)).prove()
    assert not re.search("ten7|Gar", str(caught.value))


def test_only_the_same_camera_gets_the_password():
    address = parse_address("http://me:s@door/v")
    assert address.has_origin_of("http://door/w")
    assert address.has_origin_of("https://door/v")
    for other in ("http://door:81/v", "http://dora/v", "https://door:8443/v", "ftp://door/v"):
        assert not address.has_origin_of(other)
    assert not parse_address("https://me:s@door/v").has_origin_of("http://door/v")


def test_other_parts_of_a_name_stay():
    for name in ("photo@2x.jpg", "2026-01-02T10:15:30.mp4", "-"):
        assert public_name(name) == name
    assert public_name("rtsp://me:secret@door:554/a?b") == "rtsp://door:554/a?b"
    assert parse_address("http://me:s%2Fcret@door/a?b=1#c").url == "http://door/a?b=1"


def test_a_snapshot_address_is_one_steady_source(camera, watch):
    camera.mode = "snapshot"
    seen = watch(camera.address, fps=20)
    until(lambda: len(seen.frames()) >= 5)
    took = seen.frames()[4].taken - seen.frames()[0].taken
    assert 0.15 < took < 2.0
    assert [frame.index for frame in seen.frames()[:5]] == list(range(5))
    assert not seen.gaps()


@pytest.mark.parametrize(("mode", "says"), [("refuses", "401"), ("ends", "ended"), ("dead", "can't be reached")])
def test_the_start_says_why_a_camera_fails(camera, mode, says):
    camera.kill() if mode == "dead" else setattr(camera, "mode", mode)
    with pytest.raises(SourceError, match=says):
        open_source(camera.address, SourceOptions()).prove()


def test_connecting_has_a_deadline_of_its_own(camera, monkeypatch):
    monkeypatch.setattr("edge_runtime.sources.http_camera.CONNECT_S", 0.3)
    began = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(SourceError, match="can't be reached"):
        open_source(f"http://127.0.0.1:{silent.getsockname()[1]}/", SourceOptions(stall_timeout_s=20.0)).prove()
    camera.mode = "trickles"
    with pytest.raises(SourceError, match="no complete answer"):
        open_http(camera.address, stall_timeout_s=20.0)
    assert time.monotonic() - began < 5.0
    camera.mode = "silent"
    opened = open_http(camera.address, stall_timeout_s=20.0)
    threading.Timer(0.6, lambda: setattr(camera, "mode", "pictures")).start()
    assert opened.read()().size == (64, 48)
    opened.close()
