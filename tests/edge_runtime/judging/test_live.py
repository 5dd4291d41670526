"""Live sources with a clock of their own: frames of 25 per second, judged one after the other unless told otherwise."""

import contextlib
import socket
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from edge_runtime import run
from edge_runtime.errors import DeviceError, PictureError
from edge_runtime.inference.engine import Engine, choose
from edge_runtime.inference.faces import DetectedFace
from edge_runtime.judging.live import LiveScorer
from edge_runtime.judging.results import Reason, SourceState
from edge_runtime.judging.scorer import FrameScorer, Verdicts
from edge_runtime.judging.summary import FileVerdicts
from edge_runtime.model.contract import Verdict
from edge_runtime.pipeline import Pipeline
from edge_runtime.sinks.terminal import frame_lines
from edge_runtime.sources import Frame, Gap, Source
from edge_runtime.sources.opencv import CvView

SIDE = 64
FPS = 25.0


class Faces:
    """A face detector that knows where the faces are, and counts its searches."""

    def __init__(self, *corners):
        self.corners, self.searches = list(corners), 0

    def detect(self, picture):
        self.searches += 1
        return [DetectedFace((float(x), float(y), x + SIDE, y + SIDE), 0.9) for x, y in self.corners]


class Device:
    """A stand-in device: `parallel` crops at once, each in `crop_s`; its answers follow the pixels' colour."""

    def __init__(self, crop_s=0.0, requests=1):
        self.requests, self.crop_s, self.crops, self.fails = requests, crop_s, 0, False
        self._lock, self.answers = threading.Lock(), threading.Event()
        self.answers.set()

    def logits(self, pixels):
        self.answers.wait(30)
        with self._lock:
            self.crops += len(pixels)
            if self.fails:
                raise DeviceError("gone")
            time.sleep(self.crop_s * len(pixels))
        redness = pixels[..., 0].mean((1, 2)) - pixels[..., 2].mean((1, 2))
        return np.stack([-redness, redness], axis=1).astype(np.float32) / 64

    rows = logits


class Camera:
    """A live scorer, its detector and device, and a scene: faces before a wall, at a time of its own."""

    def __init__(self, bundle, *corners, colours=((230, 120, 30),), **device):
        self.faces, self.device = Faces(*corners), Device(**device)
        engine = Engine(bundle, choose(bundle), build=lambda *_, **__: self.device)
        self.now, self.number, self.colours = 0.0, 0, colours
        # Frames wait for their logits a second longer than usual, so that a busy machine changes nothing.
        self.longer_s = 1.0
        self.scorer = LiveScorer(FrameScorer(engine, moving_faces=self.faces), clock=lambda: self.now - self.longer_s)
        self.verdicts = Verdicts(engine.contract)

    def picture(self, shift=0):
        random = np.random.default_rng(7)
        pixels = random.integers(60, 160, (240, 320, 3)).astype(np.int16) + shift
        for place, (x, y) in enumerate(self.faces.corners):
            noise = random.integers(-20, 20, (SIDE, SIDE, 3))
            pixels[y : y + SIDE, x : x + SIDE] = np.array(self.colours[place % len(self.colours)]) + noise
        return pixels.clip(0, 255).astype(np.uint8)

    def frame(self, shift=0, **fields):
        view = CvView(np.ascontiguousarray(self.picture(shift)[:, :, ::-1]))
        frame = Frame("cam", self.number, view, taken=self.now, live=True, turn=self.number, **fields)
        self.number, self.now = self.number + 1, self.now + 1 / FPS
        return frame

    def judge(self, shift=0, **fields):
        return self.verdicts.of_frame(self.scorer(self.frame(shift, **fields)))

    def move(self, frames, step=1, **fields):
        """Judge frames in which the faces move, and light changes a little."""
        results = []
        for number in range(frames):
            self.faces.corners = [(x + step * (-1) ** (number // 8), y) for x, y in self.faces.corners]
            results.append(self.judge(shift=2 * (number % 2), **fields))
        return results


def test_steady_faces_are_followed_between_searches(bundle):
    camera = Camera(bundle, (40, 40), (200, 100))
    results = camera.move(75, step=2)
    # Three seconds at five searches, and the first frames.
    assert 3 * 4 <= camera.faces.searches <= 3 * 5 + 3
    for result in results:
        assert [face.track for face in result.faces] == [1, 2]
        assert [face.detection for face in result.faces] == [0.9, 0.9]
    # A followed box is where the face is: the crops show its colour alone.
    assert {face.verdict for result in results[3:] for face in result.faces} == {Verdict.FAKE}
    assert min(face.score for result in results for face in result.faces if face.score is not None) > 0.9


def test_a_new_face_is_found_within_0_4_seconds(bundle):
    camera = Camera(bundle, (40, 40))
    for wait, corner in zip(range(10, 14), [(150, 20), (20, 150), (120, 150), (220, 150)], strict=True):
        camera.move(wait)
        camera.faces.corners.append(corner)
        within = [len(result.faces) for result in camera.move(10)]
        assert within[-1] == len(camera.faces.corners)


def test_a_still_scene_is_left_alone_until_it_changes(bundle):
    camera = Camera(bundle, (40, 40))
    camera.move(30)
    for _ in range(30):
        camera.judge()
    searches, crops = camera.faces.searches, camera.device.crops
    results = [camera.judge() for _ in range(100)]
    assert (camera.faces.searches, camera.device.crops) == (searches, crops)
    carried = [result.faces[0].carried_s for result in results]
    assert np.diff(carried) == pytest.approx(1 / FPS)
    assert {(face.track, face.verdict, face.score) for result in results for face in result.faces} == {
        (1, Verdict.FAKE, None)
    }
    # Another face in another place: searched and judged in the very frame.
    camera.faces.corners = [(200, 120)]
    (face,) = camera.judge().faces
    assert (face.box[:2], face.track, face.carried_s) == ((200, 120), 2, None)
    assert face.score > 0.9


def test_after_rest_every_frame_is_searched_again(bundle):
    camera = Camera(bundle, (40, 40))
    for _ in range(60):
        camera.judge()
    # The first frame that moves shows no new face yet.
    assert len(camera.judge(shift=10).faces) == 1
    camera.faces.corners.append((200, 120))
    assert len(camera.judge(shift=20).faces) == 2


def test_a_still_scene_is_looked_at_every_five_seconds(bundle):
    camera = Camera(bundle, (40, 40))
    results = [camera.judge() for _ in range(25 * 12)]
    judged = [result.frame for result in results if result.faces[0].carried_s is None]
    assert judged[-2] - judged[-3] == pytest.approx(125, abs=1)
    assert max(face.carried_s for result in results for face in result.faces if face.carried_s) <= 5.0
    # Time stands still meanwhile, so the verdict does not end after two seconds.
    assert results[-1].faces[0].track_score > 0.9


def test_a_face_that_was_not_judged_says_so(bundle):
    camera = Camera(bundle, (10, 10), (100, 10), (200, 10), colours=((230, 120, 30), (30, 120, 230)))
    first = camera.judge()
    # Nothing is known of the device yet: one crop at a time.
    assert [face.reason_code for face in first.faces].count(Reason.NOT_YET) == 2
    results = camera.move(20)
    values = [face.to_dict() for result in results for face in result.faces]
    assert all(("carried_s" in value) == (value["score"] is None) for value in values if value["reason"] is None)
    assert [face.verdict for face in results[-1].faces] == [Verdict.FAKE, Verdict.REAL, Verdict.FAKE]


def test_small_faces_keep_their_reason_and_let_the_scene_rest(bundle):
    camera = Camera(bundle, (40, 40))
    camera.scorer._scorer.limits = type(camera.scorer._scorer.limits)(min_face=100)
    results = [camera.judge() for _ in range(60)]
    assert {(face.reason_code, face.carried_s) for result in results for face in result.faces} == {
        (Reason.TOO_SMALL, None)
    }
    assert camera.faces.searches < 20
    assert camera.device.crops == 0


def test_a_loss_ends_tracks(bundle):
    camera = Camera(bundle, (40, 40))
    camera.move(10)
    assert camera.judge().faces[0].track == 1
    assert camera.judge(gaps=1).faces[0].track == 2


def test_other_frames_are_searched_and_judged_each(bundle):
    camera = Camera(bundle, (40, 40))
    for number in range(60):
        frame = Frame("file", number, CvView(camera.picture()), position_s=number / FPS)
        (face,) = camera.verdicts.of_frame(camera.scorer(frame)).faces
        assert face.score is not None
        assert face.carried_s is None
    assert (camera.faces.searches, camera.device.crops) == (60, 60)


def test_late_answers_count_for_the_track(bundle):
    camera = Camera(bundle, (40, 40), crop_s=0.2)
    camera.scorer._clock = time.monotonic
    results = []
    for _ in range(40):
        camera.now = time.monotonic()
        results.append(camera.judge(shift=5 * (camera.number % 2)))
        time.sleep(max(0.0, camera.now - time.monotonic()))
    faces = [face for result in results for face in result.faces]
    # Not all of them: a busy machine may keep any frame waiting until its answer is there.
    assert np.median([result.age_ms for result in results]) < 200
    assert sum(face.score is None for face in faces) > len(faces) / 2
    assert faces[-1].verdict is Verdict.FAKE
    assert 0.0 < min(face.carried_s for face in faces if face.carried_s) < 1.0


def test_a_face_without_answers_for_two_seconds_has_a_reason(bundle):
    camera = Camera(bundle, (40, 40))
    camera.move(10)
    camera.device.answers.clear()
    camera.longer_s = -1.0
    results = camera.move(75)
    # A track's logits count for two seconds.
    seen = [(face.verdict, face.reason_code) for result in results for face in result.faces]
    assert seen[0] == (Verdict.FAKE, None)
    assert seen[60:] == [(Verdict.UNCERTAIN, Reason.NOT_YET)] * 15
    assert results[-1].faces[0].carried_s == pytest.approx(3.0, abs=0.1)
    assert "face 1  uncertain (not judged yet)" in frame_lines(results[-1], 25.0)[0]
    camera.device.answers.set()
    camera.longer_s = 1.0
    (face,) = camera.move(10)[-1].faces
    assert (face.verdict, face.reason) == (Verdict.FAKE, None)


def test_the_watchdog_notices_a_device_that_hangs(bundle, tmp_path, monkeypatch, caplog):
    """Frames don't wait for its answers, so they are judged all the same."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "1000")
    monkeypatch.setattr(run, "STUCK_S", 0.3)
    camera = Camera(bundle, (40, 40))
    camera.scorer._clock = time.monotonic
    written, pinged = [], []

    class Sink:
        losses = SimpleNamespace(count=0)

        def write(self, judged):
            if judged.result.state is not SourceState.OK:
                return
            written.append(judged.result.frame)
            (camera.device.answers.clear if 10 <= judged.result.frame < 45 else camera.device.answers.set)()
            with contextlib.suppress(BlockingIOError):
                while listener.recv(4096) == b"WATCHDOG=1":
                    pinged.append(judged.result.frame)

        def conclude(self, files):
            pass

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.setblocking(False)
        pipeline = Pipeline([Played(camera, 60)], camera.scorer, camera.verdicts, workers=3)
        run.run(pipeline, [Sink()], FileVerdicts(camera.scorer._scorer.engine.contract, "any"), str)
    assert written[-1] == 59
    assert {*range(10)} & {*pinged}
    # 0.3 s of grace are 8 frames.
    assert not {*range(22, 45)} & {*pinged}
    assert {*range(50, 60)} & {*pinged}
    assert caplog.text.count("no answer for") == 1


def test_a_device_that_fails_late_still_ends_the_run(bundle):
    camera = Camera(bundle, (40, 40))
    camera.move(5)
    camera.device.fails, camera.longer_s = True, -1.0
    # On a busy machine the device's thread may come to its failure some frames later.
    with pytest.raises(DeviceError):
        camera.move(200)


def test_a_broken_frame_is_an_error_and_the_next_one_is_judged(bundle):
    camera = Camera(bundle, (40, 40))

    def broken():
        raise PictureError("cut off")

    camera.move(3)
    frame = Frame("cam", camera.number, broken, taken=camera.now, live=True, turn=camera.number)
    camera.number += 1
    result = camera.verdicts.of_frame(camera.scorer(frame))
    assert (result.error, result.faces) == ("cut off", ())
    assert len(camera.judge().faces) == 1


class Played(Source):
    """A live source of the camera's scene at 25 frames a second, with a loss in between."""

    name, live = "cam", True

    def __init__(self, camera, frames):
        self._camera, self._frames = camera, frames

    def frames(self, stop):
        for number in range(self._frames):
            shift = 3 * (number % 2)
            view = CvView(np.ascontiguousarray(self._camera.picture(shift)[:, :, ::-1]))
            yield Frame(self.name, number, view)
            if number == self._frames // 2:
                yield Gap(self.name, SourceState.LOST, "unplugged")
            time.sleep(1 / FPS)


def test_a_pipeline_keeps_the_order_of_frames_and_shows_their_pictures(bundle):
    camera = Camera(bundle, (40, 40), (200, 100), crop_s=0.03)
    camera.scorer._clock = time.monotonic
    pipeline = Pipeline([Played(camera, 40)], camera.scorer, camera.verdicts, workers=3)
    judged = list(pipeline.results())
    states = [one.result.state for one in judged]
    numbers = [one.result.frame for one in judged if one.result.state is SourceState.OK]
    assert states.count(SourceState.LOST) == 1
    assert numbers == sorted(set(numbers))
    assert len(numbers) + judged[-1].result.dropped == 40
    assert {face.track for one in judged[-5:] for face in one.result.faces} == {3, 4}
    shown = judged[-1].shown()
    assert (shown.mode, shown.size) == ("RGB", (320, 240))
    assert (judged[-1].result.width, judged[-1].result.height) == (320, 240)
    assert isinstance(shown, Image.Image)


def test_a_new_scorer_takes_over_between_two_frames(bundle):
    camera, other = Camera(bundle, (40, 40)), Camera(bundle, (40, 40), colours=((30, 120, 230),))
    camera.scorer._clock = other.scorer._clock = time.monotonic
    pipeline = Pipeline([Played(camera, 30)], camera.scorer, camera.verdicts, workers=2)
    numbers = []
    for judged in pipeline.results():
        numbers.append(judged.result.frame)
        if len(numbers) == 8:
            pipeline.switch(other.scorer, other.verdicts)
    assert other.device.crops > 0
    assert len(numbers) + judged.result.dropped == 31
