"""The live page: one inference for all viewers, and the camera is off when nobody watches."""

import base64
import io
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx2
import numpy as np
import pytest
from helpers.videos import write_video
from helpers.waiting import until
from PIL import Image

from benchmarks.studies.small import write_small_bundle
from edge_runtime.detector import Detector
from edge_runtime.errors import BundleError
from edge_runtime.model.bundle import Bundle
from edge_runtime.web.app import create_app
from edge_runtime.web.service import feed
from edge_runtime.web.service.batching import BatchingQueue
from edge_runtime.web.settings import ServiceLimits, Settings


@pytest.fixture
def watched(served, detector, camera, monkeypatch):
    """The address of a service with a camera."""
    monkeypatch.setattr(feed, "LINGER_S", 0.2)
    monkeypatch.setattr(feed, "RETRY_S", 0.05)
    monkeypatch.setattr("edge_runtime.web.service.feed.camera_opener", lambda name: camera.open)
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
            length = int(top.rpartition(b"Content-Length: ")[2]) if found else 0
            if not found or len(rest) < length + 2:
                break
            yield rest[:length]
            received = rest[length + 2 :]


def statuses(base: str) -> Iterator[dict]:
    with httpx2.stream("GET", f"{base}/live/events", timeout=20) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line.startswith("data: "):
                yield json.loads(line.removeprefix("data: "))


def shown_frames(base: str) -> Iterator[dict]:
    """Watch as the page does; yields statuses that have a picture."""
    with httpx2.stream("GET", f"{base}/live/events", params={"pictures": True}, timeout=20) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: ") and (status := json.loads(line.removeprefix("data: ")))["picture"]:
                yield status


def status_with(state: str, statuses: Iterator[dict]) -> dict:
    return next(status for status in statuses if status["state"] == state)


def test_frames_have_the_verdicts_drawn(watched, camera):
    with watching(watched) as frames:
        shown = np.asarray(Image.open(io.BytesIO(next(frames))))
    assert shown.shape == (640, 960, 3)
    changed = np.abs(shown.astype(int) - np.asarray(camera.picture)).max(axis=-1) > 90
    assert 0.002 < changed.mean() < 0.1


def test_status_has_rate_device_and_faces(watched):
    with watching(watched) as frames:
        next(frames)
        status = next(status for status in statuses(watched) if status["fps"] > 0)
    assert status["state"] == "ok"
    assert status["age_ms"] >= 0
    assert (status["device"], status["precision"], status["viewers"]) == ("CPU", "fp32", 1)
    assert [face["verdict"] for face in status["faces"]].count("fake") == 1
    assert "temperature" in status
    text = httpx2.get(f"{watched}/metrics", timeout=20).text
    counted = dict(line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("deepfake_edge_live"))
    assert float(counted["deepfake_edge_live_frames_total"]) >= 1
    assert {"deepfake_edge_live_viewers", "deepfake_edge_live_frames_dropped_total"} <= counted.keys()


def test_status_and_picture_are_of_the_same_frame(watched, camera):
    faces, empty = camera.picture, Image.new("RGB", camera.picture.size, (90, 140, 220))
    seen = set()
    for number, status in enumerate(shown_frames(watched)):
        camera.picture = (faces, empty)[number // 3 % 2]
        data = base64.b64decode(status["picture"].removeprefix("data:image/jpeg;base64,"))
        shown = np.asarray(Image.open(io.BytesIO(data))).astype(int)
        is_empty = np.abs(shown - (90, 140, 220)).mean() < 10
        # A new face may be found a few frames later, but a face that is gone has no box.
        assert not (is_empty and status["faces"])
        seen.add((is_empty, status["faces"] == []))
        if number > 10 and {(True, True), (False, False)} <= seen:
            break


def test_video_is_played_at_its_own_speed(face, tmp_path):
    path = write_video(tmp_path / "clip.avi", [Image.open(io.BytesIO(face()))] * 12, fps=10)
    source = feed.camera_opener(str(path))()
    assert source.live
    taken = [frame.taken for frame in source.frames(threading.Event())]
    assert np.diff(taken) == pytest.approx([0.1] * 11, abs=0.08)


@pytest.mark.parametrize("address", ["http://admin:pa/ss@127.0.0.1:9/mjpg?pwd=pass", "admin:pass@door"])
def test_viewers_never_get_a_camera_address(served, detector, monkeypatch, address):
    monkeypatch.setattr(feed, "RETRY_S", 0.05)
    with served(detector, Settings(camera=address)) as (host, port):
        base = f"http://{host}:{port}"
        with httpx2.stream("GET", f"{base}/live/stream", timeout=20):
            lost = status_with("lost", statuses(base))
        page = httpx2.get(f"{base}/live", timeout=20).text + json.dumps(lost)
    assert lost["error"] is None
    for part in ("admin", "127.0.0.1:9", "door"):
        assert part not in page


def test_viewers_share_one_inference(watched, camera, face, monkeypatch):
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
        answer = httpx2.post(f"{watched}/predict", files={"image": face()}, timeout=20)
        assert answer.json()["prediction"] == 1
        refused = httpx2.get(f"{watched}/live/stream", timeout=20)
        assert (refused.status_code, refused.json()["type"]) == (429, "/problems/too-many-requests")
    until(lambda: camera.closed == 1)
    assert 0 < sum(counted) <= 3 * camera.frames_given + 1


def test_camera_is_on_only_while_watched(watched, camera):
    assert httpx2.get(f"{watched}/live", timeout=20).status_code == 200
    assert camera.opened == 0
    for times in (1, 2):
        with watching(watched) as frames:
            next(frames)
            assert (camera.opened, camera.closed) == (times, times - 1)
        until(lambda: camera.closed == camera.opened)
        until(lambda: not [thread for thread in threading.enumerate() if thread.name == "live"])


def test_later_viewers_see_no_track_number_again(watched, camera):
    """Whoever watches later sees other people; the monitor counts each track once."""
    seen = []
    for _ in range(2):
        faces = next(status["faces"] for status in shown_frames(watched) if status["faces"])
        seen += [face["track"] for face in faces]
        until(lambda: not [thread for thread in threading.enumerate() if thread.name == "live"])
    assert camera.closed == 2
    assert len(seen) == len(set(seen)) >= 2


def test_a_bundle_that_the_camera_cannot_use_changes_nothing(detector, tmp_path):
    app = create_app(detector, Settings(camera="0"))
    with pytest.raises(BundleError, match="no face model"):
        app.state.switch(Detector(write_small_bundle(tmp_path / "other")))
    assert app.state.judge.detector is detector
    app.state.judge.close()


def test_lost_camera_comes_back(watched, camera):
    with watching(watched) as frames:
        next(frames)
        events = statuses(watched)
        camera.lost = True
        lost = status_with("lost", events)
        assert lost["error"]
        assert lost["faces"] == []
        camera.lost = False
        assert status_with("ok", events)["error"] is None
        next(frames)


def test_broken_frame_keeps_the_last_good_one(watched, camera):
    frames = shown_frames(watched)
    # In the first frames, faces may still be with the device.
    good = next(status for status in frames if {"fake", "real"} <= {face["verdict"] for face in status["faces"]})
    camera.broken = True
    broken = next(status for status in frames if status["error"])
    assert broken["picture"]
    assert [face["verdict"] for face in broken["faces"]] == [face["verdict"] for face in good["faces"]]


@pytest.mark.parametrize("always", [False, True])
def test_faces_that_stay_are_left_alone_unless_always(served, colour_bundle, camera, monkeypatch, always):
    monkeypatch.setattr("edge_runtime.web.service.feed.camera_opener", lambda name: camera.open)
    with served(Detector(Bundle.open(colour_bundle), always=always), Settings(camera="0")) as (host, port):
        shown = shown_frames(f"http://{host}:{port}")
        faces = [face for _ in range(40) for face in next(shown)["faces"]]
    assert faces
    assert any("carried_s" in face for face in faces) is not always


def test_missing_camera_is_retried(watched, camera):
    camera.missing = True
    with httpx2.stream("GET", f"{watched}/live/stream", timeout=20) as answer:
        assert answer.status_code == 200
        assert "check the cable" in status_with("lost", statuses(watched))["error"]
        camera.missing = False
        assert next(frames_of(answer.iter_raw())).startswith(b"\xff\xd8")


@pytest.mark.slow
def test_silent_viewer_loses_its_place(served, detector, camera, monkeypatch):
    monkeypatch.setattr("edge_runtime.web.server.UNREAD_S", 1)
    monkeypatch.setattr("edge_runtime.web.service.feed.camera_opener", lambda name: camera.open)
    settings = Settings(camera="0", limits=ServiceLimits(viewers=1))
    with served(detector, settings) as address, socket.socket() as silent:
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        silent.connect(address)
        silent.sendall(b"GET /live/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        url = "http://{}:{}/live/stream".format(*address)

        def free() -> bool:
            with httpx2.stream("GET", url, timeout=20) as answer:
                return answer.status_code == 200

        until(lambda: not free())
        until(free, seconds=30)


def test_service_stops_while_somebody_watches(served, detector, camera, monkeypatch, caplog):
    monkeypatch.setattr("edge_runtime.web.service.feed.camera_opener", lambda name: camera.open)
    with served(detector, Settings(camera="0")) as (host, port):
        stream = httpx2.Client(timeout=20).stream("GET", f"http://{host}:{port}/live/stream")
        answer = stream.__enter__()
        next(frames_of(answer.iter_raw()))
    until(lambda: camera.closed == 1)
    answer.close()
    assert caplog.text == ""
