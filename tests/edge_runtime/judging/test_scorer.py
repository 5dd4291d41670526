import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from edge_runtime.errors import PictureError
from edge_runtime.inference.engine import Choice, Engine, choose
from edge_runtime.judging.results import SourceState
from edge_runtime.judging.scorer import FrameScorer, Verdicts
from edge_runtime.model.contract import DEMO_NOTICE, Framing, Precision, Verdict
from edge_runtime.pixels.quality import QualityLimits
from edge_runtime.sources import Frame, Gap


@dataclass
class Found:
    box: tuple
    detection: float = 0.9


class FixedFaces:
    """A face stage that always finds the same."""

    def __init__(self, *boxes):
        self.boxes = boxes

    def detect(self, picture):
        return [Found(box) for box in self.boxes]


@pytest.fixture(scope="module")
def engine(bundle):
    return Engine(bundle, choose(bundle))


def moving(picture, index=0, taken=None):
    frame = Frame("clip", index, lambda: picture)
    return frame if taken is None else dataclasses.replace(frame, taken=taken)


def still(picture):
    return Frame("a.jpg", 0, lambda: picture, still=True)


def test_a_red_picture_is_fake_a_blue_one_real_and_between_uncertain(engine, red, blue, grey):
    scorer, verdicts = FrameScorer(engine), Verdicts(engine.contract)
    faces = [verdicts.of_frame(scorer(still(picture))).faces[0] for picture in (red, blue, grey)]
    assert [face.verdict for face in faces] == [Verdict.FAKE, Verdict.REAL, Verdict.UNCERTAIN]
    assert faces[2].reason == "between the thresholds"
    assert faces[0].box == (0, 0, 64, 64)
    assert faces[0].score > 0.7 > 0.3 > faces[1].score


def test_no_face_no_verdict(engine, red):
    scorer = FrameScorer(engine, moving_faces=FixedFaces())
    assert Verdicts(engine.contract).of_frame(scorer(moving(red))).faces == ()


@pytest.mark.parametrize(
    ("change", "reason"),
    [("small", "face smaller than 48 pixels"), ("blurred", "too blurred"), ("dark", "too dark")],
)
def test_a_face_that_shows_too_little_is_uncertain_and_has_no_score(engine, red, change, reason):
    pictures = {"small": red, "blurred": Image.new("RGB", (64, 64), (230, 120, 30)), "dark": Image.new("RGB", (64, 64))}
    box = (0, 0, 40, 40) if change == "small" else (0, 0, 64, 64)
    scorer = FrameScorer(engine, moving_faces=FixedFaces(box), limits=QualityLimits(min_face=48))
    (face,) = Verdicts(engine.contract).of_frame(scorer(moving(pictures[change]))).faces
    assert (face.verdict, face.reason, face.score) == (Verdict.UNCERTAIN, reason, None)


def test_all_faces_of_a_frame_are_judged_each_by_its_own_pixels(engine, red, blue):
    both = Image.new("RGB", (128, 64))
    both.paste(red, (0, 0))
    both.paste(blue, (64, 0))
    scorer = FrameScorer(engine, moving_faces=FixedFaces((0, 0, 64, 64), (64, 0, 128, 64)))
    faces = Verdicts(engine.contract).of_frame(scorer(moving(both))).faces
    assert [face.verdict for face in faces] == [Verdict.FAKE, Verdict.REAL]
    assert [face.track for face in faces] == [1, 2]


def test_a_verdict_does_not_flicker_while_the_scores_of_frames_stay_visible(engine, red, blue):
    scorer, verdicts = FrameScorer(engine, moving_faces=FixedFaces((0, 0, 64, 64))), Verdicts(engine.contract)
    pictures = [red] * 6 + [blue] + [red] * 5
    results = [verdicts.of_frame(scorer(moving(p, n, 0.04 * n))).faces[0] for n, p in enumerate(pictures)]
    assert {face.verdict for face in results} == {Verdict.FAKE}
    assert results[6].score < 0.3


def test_a_face_that_is_dark_for_a_moment_keeps_its_verdict(engine, red):
    scorer, verdicts = FrameScorer(engine, moving_faces=FixedFaces((0, 0, 64, 64))), Verdicts(engine.contract)
    verdicts.of_frame(scorer(moving(red, 0, 0.0)))
    (face,) = verdicts.of_frame(scorer(moving(Image.new("RGB", (64, 64)), 1, 0.04))).faces
    assert (face.verdict, face.score, face.reason) == (Verdict.FAKE, None, None)


def test_a_face_that_stays_dark_is_uncertain_after_two_seconds(engine, blue):
    scorer, verdicts = FrameScorer(engine, moving_faces=FixedFaces((0, 0, 64, 64))), Verdicts(engine.contract)
    pictures = [blue] + [Image.new("RGB", (64, 64))] * 4
    faces = [verdicts.of_frame(scorer(moving(p, n, float(n)))).faces[0] for n, p in enumerate(pictures)]
    assert [face.verdict for face in faces] == [Verdict.REAL] * 3 + [Verdict.UNCERTAIN] * 2
    assert (faces[-1].track, faces[-1].reason, faces[-1].track_score) == (1, "too dark", None)


def test_the_faces_of_a_video_are_followed_by_its_own_time_however_slow_the_machine_is(engine, blue):
    scorer = FrameScorer(engine, moving_faces=FixedFaces((0, 0, 64, 64)))
    pictures = [blue] + [Image.new("RGB", (64, 64))] * 60

    def told(seconds_a_frame):
        verdicts = Verdicts(engine.contract)
        frames = [moving(p, n, seconds_a_frame * n) for n, p in enumerate(pictures)]
        results = [verdicts.of_frame(scorer(dataclasses.replace(frame, fps=25.0))) for frame in frames]
        return [(face.track, face.verdict) for result in results for face in result.faces]

    assert told(0.001) == told(3.0)
    assert told(3.0)[50:52] == [(1, Verdict.REAL), (1, Verdict.UNCERTAIN)]


def test_pictures_are_not_averaged_with_each_other(engine, red, blue):
    scorer, verdicts = FrameScorer(engine), Verdicts(engine.contract)
    results = [verdicts.of_frame(scorer(still(picture))).faces[0] for picture in (red, red, red, blue)]
    assert [face.verdict for face in results] == [Verdict.FAKE] * 3 + [Verdict.REAL]
    assert {face.track for face in results} == {None}


def test_after_a_change_of_network_old_logits_are_forgotten_and_faces_get_new_numbers(engine, red, blue):
    scorer, verdicts = FrameScorer(engine, moving_faces=FixedFaces((0, 0, 64, 64))), Verdicts(engine.contract)
    for number in range(5):
        verdicts.of_frame(scorer(moving(red, number, 0.04 * number)))
    other = dataclasses.replace(scorer(moving(blue, 5, 0.2)), choice=Choice("CPU", Precision.FP32))
    (face,) = verdicts.of_frame(other).faces
    assert (face.verdict, face.track) == (Verdict.REAL, 2)


def test_after_a_loss_a_face_is_a_new_one(engine, red):
    scorer, verdicts = FrameScorer(engine, moving_faces=FixedFaces((0, 0, 64, 64))), Verdicts(engine.contract)
    verdicts.of_frame(scorer(moving(red, 0, 0.0)))
    assert verdicts.of_gap(Gap("clip", SourceState.LOST, "unplugged")).state == SourceState.LOST
    assert verdicts.of_frame(scorer(moving(red, 1, 0.1))).faces[0].track == 2


def test_a_picture_that_can_not_be_read_becomes_its_error(engine):
    def broken():
        raise PictureError("a.jpg: broken")

    result = Verdicts(engine.contract).of_frame(FrameScorer(engine)(Frame("a.jpg", 0, broken, still=True)))
    assert (result.error, result.faces, result.width) == ("a.jpg: broken", (), 0)


def test_a_demonstration_model_says_so_with_every_frame_and_gap(engine):
    verdicts = Verdicts(engine.contract.replace(demo=True))
    assert verdicts.of_gap(Gap("clip", SourceState.LOST)).notice == DEMO_NOTICE


def test_a_framed_face_is_shown_with_its_margin(bundle, make_bundle, tmp_path):
    from edge_runtime.model.bundle import Bundle

    framed = Bundle.open(make_bundle(tmp_path / "detector", framing=Framing.DETECTED, margin=1.0))
    picture = Image.new("RGB", (256, 256), (30, 120, 230))
    noise = np.random.default_rng(1).integers(0, 40, (96, 96, 3), np.uint8)
    picture.paste(Image.fromarray(noise + np.array([200, 80, 0], np.uint8)), (80, 80))
    answers = []
    for which in (bundle, framed):
        engine = Engine(which, choose(which))
        scored = FrameScorer(engine, still_faces=FixedFaces((80, 80, 176, 176)))(still(picture))
        answers.append(scored.faces[0].logit)
    assert answers[0] > answers[1] + 1.0


def test_times_are_monotonic_so_a_jump_of_the_clock_makes_no_negative_age(engine, red):
    from datetime import datetime, timezone

    frame = dataclasses.replace(still(red), time=datetime(2099, 1, 1, tzinfo=timezone.utc))
    result = Verdicts(engine.contract).of_frame(FrameScorer(engine)(frame))
    assert 0 <= result.latency_ms <= result.age_ms < 1e6
    assert result.time.year == 2099
