"""The live page: one inference for all viewers, the camera off when nobody watches, and its loss and return."""

import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx2
import numpy as np
import pytest
from PIL import Image

from edge_runtime.web.service import feed as live_module
from edge_runtime.web.service.batching import BatchingQueue
from edge_runtime.web.settings import ServiceLimits, Settings


@pytest.fixture
def watched(served, detector, camera, monkeypatch):
    """A service with that camera; yields its address and the detector's own count of faces."""
    monkeypatch.setattr(live_module, "LINGER_S", 0.2)
    monkeypatch.setattr(live_module, "RETRY_S", 0.05)
    monkeypatch.setattr("edge_runtime.web.app.camera_opener", lambda name: camera.open)
    with served(detector, Settings(camera="0", limits=ServiceLimits(viewers=3))) as (host, port):
        yield f"http://{host}:{port}"


@contextmanager
def watching(base: str) -> Iterator[Iterator[bytes]]:
    """Watch the stream; yields its frames, each a JPEG."""
    with httpx2.stream("GET", f"{base}/live/stream", timeout=20) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "multipart/x-mixed-replace; boundary=frame"
        yield frames_of(answer.iter_raw())


def frames_of(chunks: Iterator[bytes]) -> Iterator[bytes]:
    received = b""
    for chunk in chunks:
        received += chunk
        while True:
            top, found, rest = received.partition(b"\r\n\r\n")
            if not found:
                break
            length = int(top.rpartition(b"Content-Length: ")[2])
            if len(rest) < length + 2:
                break
            yield rest[:length]
            received = rest[length + 2 :]


def statuses(base: str) -> Iterator[dict]:
    with httpx2.stream("GET", f"{base}/live/events", timeout=20) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line.startswith("data: "):
                yield json.loads(line.removeprefix("data: "))


def until(check, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if check():
            return True
        time.sleep(0.02)
    return False


def test_a_viewer_sees_the_faces_with_their_verdicts_drawn(watched, camera):
    with watching(watched) as frames:
        shown = np.asarray(Image.open(io.BytesIO(next(frames))))
    assert shown.shape == (640, 960, 3)
    changed = np.abs(shown.astype(int) - np.asarray(camera.picture)).max(axis=-1) > 90
    assert 0.002 < changed.mean() < 0.1


def test_the_figures_tell_rate_age_device_and_verdicts(watched, detector):
    with watching(watched) as frames:
        next(frames)
        said = next(status for status in statuses(watched) if status["fps"] > 0)
    assert said["state"] == "ok"
    assert said["age_ms"] >= 0
    assert (said["device"], said["precision"]) == ("CPU", "fp32")
    assert said["viewers"] == 1
    assert [face["verdict"] for face in said["faces"]].count("fake") == 1
    assert "temperature" in said


def test_several_viewers_share_one_inference(watched, camera, detector, monkeypatch):
    counted = []
    original = BatchingQueue.submit

    def counting(queue: BatchingQueue, pixels: np.ndarray, compute: Callable, **options: object) -> object:
        counted.append(len(pixels))
        return original(queue, pixels, compute, **options)

    monkeypatch.setattr(BatchingQueue, "submit", counting)
    with watching(watched) as one, watching(watched) as two, watching(watched) as three:
        for _ in range(10):
            shown = [next(frames) for frames in (one, two, three)]
        assert all(frame.startswith(b"\xff\xd8") for frame in shown)
        assert camera.opened == 1
    assert until(lambda: camera.closed == 1)
    assert 0 < sum(counted) <= 3 * camera.frames_given


def test_one_viewer_more_than_may_is_told_to_come_again(watched):
    with watching(watched) as one, watching(watched), watching(watched):
        next(one)
        answer = httpx2.get(f"{watched}/live/stream", timeout=20)
        assert answer.status_code == 429
        assert answer.json()["type"] == "/problems/too-many-requests"


def test_the_camera_is_off_until_somebody_watches_and_again_when_they_leave(watched, camera):
    assert httpx2.get(f"{watched}/live", timeout=20).status_code == 200
    assert camera.opened == 0
    for times in (1, 2):
        with watching(watched) as frames:
            next(frames)
            assert (camera.opened, camera.closed) == (times, times - 1)
        assert until(lambda: camera.closed == camera.opened), "the camera stayed on"
        assert until(lambda: not [thread for thread in threading.enumerate() if thread.name == "live"])


def test_a_lost_camera_is_told_and_frames_come_again_when_it_is_back(watched, camera):
    with watching(watched) as frames:
        next(frames)
        events = statuses(watched)
        camera.lost = True
        lost = next(status for status in events if status["state"] == "lost")
        assert "no frame" in lost["error"]
        assert lost["faces"] == []
        camera.lost = False
        assert next(status for status in events if status["state"] == "ok")["error"] is None
        next(frames)


def test_a_camera_that_is_not_there_is_told_and_looked_for_again(watched, camera):
    camera.missing = True
    with httpx2.stream("GET", f"{watched}/live/stream", timeout=20) as answer:
        assert answer.status_code == 200
        said = next(status for status in statuses(watched) if status["state"] == "lost")
        assert "check the cable" in said["error"]
        camera.missing = False
        assert next(frames_of(answer.iter_raw())).startswith(b"\xff\xd8")


def test_a_viewer_who_left_without_a_word_gives_up_the_place(served, detector, camera, monkeypatch):
    monkeypatch.setattr("edge_runtime.web.server.UNREAD_S", 1)
    monkeypatch.setattr("edge_runtime.web.app.camera_opener", lambda name: camera.open)
    settings = Settings(camera="0", limits=ServiceLimits(viewers=1))
    with served(detector, settings) as address, socket.socket() as silent:
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        silent.connect(address)
        silent.sendall(b"GET /live/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        url = "http://{}:{}/live/stream".format(*address)

        def free() -> bool:
            with httpx2.stream("GET", url, timeout=20) as answer:
                return answer.status_code == 200

        assert until(lambda: not free())
        assert until(free, seconds=30)


def test_dropped_frames_and_viewers_are_counted_for_prometheus(watched):
    with watching(watched) as frames:
        for _ in range(3):
            next(frames)
        text = httpx2.get(f"{watched}/metrics", timeout=20).text
    assert "deepfake_edge_live_viewers 1.0" in text
    figures = dict(line.split(" ") for line in text.splitlines() if line.startswith("deepfake_edge_live_frames"))
    assert float(figures["deepfake_edge_live_frames_total"]) >= 1
    assert "deepfake_edge_live_frames_dropped_total" in figures


def test_pictures_are_judged_while_the_camera_runs(watched, face):
    with watching(watched) as frames:
        next(frames)
        for _ in range(5):
            answer = httpx2.post(f"{watched}/predict", files={"image": face()}, timeout=20)
            assert answer.json()["prediction"] == 1


def test_the_service_ends_in_peace_although_somebody_watches(served, detector, camera, monkeypatch, caplog):
    monkeypatch.setattr("edge_runtime.web.app.camera_opener", lambda name: camera.open)
    with served(detector, Settings(camera="0")) as (host, port):
        stream = httpx2.Client(timeout=20).stream("GET", f"http://{host}:{port}/live/stream")
        answer = stream.__enter__()
        next(frames_of(answer.iter_raw()))
    assert until(lambda: camera.closed == 1)
    answer.close()
    assert caplog.text == ""
