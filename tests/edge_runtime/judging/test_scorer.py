import dataclasses
from dataclasses import dataclass
from datetime import datetime, timezone

import numpy as np
import pytest
from PIL import Image

from edge_runtime.errors import PictureError
from edge_runtime.inference.engine import Choice, Engine, choose
from edge_runtime.judging.results import Reason, SourceState
from edge_runtime.judging.scorer import FrameScorer, Verdicts, all_crops, prepare_face, split_rows
from edge_runtime.model.bundle import Bundle
from edge_runtime.model.contract import DEMO_NOTICE, Calibration, Framing, Precision, QualityGroup, Verdict
from edge_runtime.pixels.quality import QualityLimits
from edge_runtime.sources import Frame, Gap

BLACK = Image.new("RGB", (64, 64))


@dataclass
class Found:
    box: tuple
    detection: float = 0.9


class FixedFaces:
    """A face detector that always finds the same."""

    def __init__(self, *boxes):
        self.boxes = boxes

    def detect(self, picture):
        return [Found(box) for box in self.boxes]


@pytest.fixture(scope="module")
def engine(bundle):
    return Engine(bundle, choose(bundle))


@pytest.fixture
def follow(engine):
    """Judges a video of one face: pictures, seconds per frame; returns the face's results."""
    scorer, verdicts = FrameScorer(engine, moving_faces=FixedFaces((0, 0, 64, 64))), Verdicts(engine.contract)

    def judge(pictures, seconds=0.04, fps=None):
        frames = [moving(picture, number, seconds * number) for number, picture in enumerate(pictures)]
        if fps is not None:
            frames = [dataclasses.replace(frame, position_s=frame.index / fps) for frame in frames]
        results = [verdicts.of_frame(scorer(frame)) for frame in frames]
        return [face for result in results for face in result.faces]

    return judge


def moving(picture, index=0, taken=0.0):
    return Frame("clip", index, lambda: picture, taken=taken)


def still(picture):
    return Frame("a.jpg", 0, lambda: picture, still=True)


def test_colours_decide_the_verdicts(engine, red, blue, grey):
    scorer, verdicts = FrameScorer(engine), Verdicts(engine.contract)
    faces = [verdicts.of_frame(scorer(still(picture))).faces[0] for picture in (red, blue, grey)]
    assert [face.verdict for face in faces] == [Verdict.FAKE, Verdict.REAL, Verdict.UNCERTAIN]
    assert (faces[2].reason, faces[2].reason_code) == ("between the thresholds", Reason.BETWEEN_THRESHOLDS)
    assert faces[0].box == (0, 0, 64, 64)
    assert faces[0].score > 0.7 > 0.3 > faces[1].score


def test_no_face_no_verdict(engine, red):
    scorer = FrameScorer(engine, moving_faces=FixedFaces())
    assert Verdicts(engine.contract).of_frame(scorer(moving(red))).faces == ()


def test_poor_pictures_have_thresholds_of_their_own(make_bundle, tmp_path, picture_of_colour):
    groups = (QualityGroup(sharpness=0.4, blockiness=None, size=None, scale=0.02, shift=0.0),)
    reading = Calibration(temperature=1.0, low=0.3, high=0.7, fitted=True, groups=groups)
    graded = Bundle.open(make_bundle(tmp_path / "detector", calibrations={"fp32": reading, "int8": reading}))
    scorer, verdicts = FrameScorer(Engine(graded, choose(graded))), Verdicts(graded.contract)
    picture = picture_of_colour(230, 30, size=(32, 32), noise=40)
    enlarged = picture.resize((16, 16)).resize((32, 32))
    sharp, soft = (verdicts.of_frame(scorer(still(seen))).faces[0] for seen in (picture, enlarged))
    assert (sharp.verdict, soft.verdict) == (Verdict.FAKE, Verdict.UNCERTAIN)
    assert 0.5 < soft.score < 0.7 < sharp.score


@pytest.mark.parametrize("tracked", [False, True])
def test_careful_gives_no_verdict_that_small_changes_change(engine, red, blue, tracked):
    def judged(blue_columns, careful):
        picture = red.copy()
        picture.paste(blue.crop((0, 0, blue_columns, 64)), (0, 0))
        scorer = FrameScorer(engine, moving_faces=FixedFaces((0, 0, 64, 64)), careful=careful)
        frame = moving(picture) if tracked else still(picture)
        return Verdicts(engine.contract).of_frame(scorer(frame)).faces[0]

    plain = [judged(columns, careful=False) for columns in range(64)]
    careful = [judged(columns, careful=True) for columns in range(64)]
    assert [face.score for face in plain] == pytest.approx([face.score for face in careful])
    doubted = [columns for columns in range(64) if careful[columns].reason_code is Reason.UNSTABLE]
    assert doubted
    assert Verdict.UNCERTAIN not in {plain[columns].verdict for columns in doubted}
    assert [careful[columns].verdict for columns in (0, 63)] == [Verdict.FAKE, Verdict.REAL]


@pytest.mark.parametrize(
    ("picture", "box", "code", "reason"),
    [
        (Image.new("RGB", (64, 64), (230, 120, 30)), (0, 0, 64, 64), Reason.TOO_BLURRED, "too blurred"),
        (BLACK, (0, 0, 64, 64), Reason.TOO_DARK, "too dark"),
        (BLACK, (0, 0, 29, 64), Reason.TOO_SMALL, "face smaller than 30 pixels"),
    ],
)
def test_poor_faces_are_uncertain_without_a_score(engine, picture, box, code, reason):
    limits = QualityLimits(min_face=30)
    scorer = FrameScorer(engine, moving_faces=FixedFaces(box), limits=limits)
    (face,) = Verdicts(engine.contract, limits=limits).of_frame(scorer(moving(picture))).faces
    assert (face.verdict, face.reason_code, face.reason, face.score) == (Verdict.UNCERTAIN, code, reason, None)


@pytest.mark.parametrize("whole", [True, False])
def test_only_found_faces_have_a_smallest_size(engine, red, whole):
    """Training pictures may be small."""
    small = red.resize((32, 32))
    scorer = FrameScorer(engine, moving_faces=None if whole else FixedFaces((0, 0, 32, 32)))
    (face,) = Verdicts(engine.contract).of_frame(scorer(moving(small))).faces
    expected = (Verdict.FAKE, None) if whole else (Verdict.UNCERTAIN, Reason.TOO_SMALL)
    assert (face.verdict, face.reason_code) == expected


def test_each_face_is_judged_by_its_own_pixels(engine, red, blue):
    both = Image.new("RGB", (192, 64))
    for number, picture in enumerate((red, BLACK, blue)):
        both.paste(picture, (64 * number, 0))
    boxes = [(64 * number, 0, 64 * number + 64, 64) for number in range(3)]
    scorer = FrameScorer(engine, moving_faces=FixedFaces(*boxes))
    faces = Verdicts(engine.contract).of_frame(scorer(moving(both))).faces
    assert [face.verdict for face in faces] == [Verdict.FAKE, Verdict.UNCERTAIN, Verdict.REAL]
    assert [face.track for face in faces] == [1, 2, 3]


def test_answers_are_split_by_face(engine, red):
    faces = [prepare_face(picture, None, engine.contract, QualityLimits()) for picture in (red, BLACK, red)]
    assert all_crops(faces).shape[0] == 2
    rows = split_rows(faces, np.arange(8.0).reshape(2, 4))
    assert [len(mine) for mine in rows] == [1, 0, 1]
    assert rows[2].tolist() == [[4.0, 5.0, 6.0, 7.0]]
    assert all_crops([]) is None
    assert split_rows([], np.empty((0, 2))) == []


def test_a_verdict_does_not_flicker(follow, red, blue):
    faces = follow([red] * 6 + [blue] + [red] * 5)
    assert {face.verdict for face in faces} == {Verdict.FAKE}
    assert faces[6].score < 0.3


def test_a_dark_moment_keeps_the_verdict_for_two_seconds(follow, blue):
    faces = follow([blue] + [BLACK] * 4, seconds=1.0)
    assert [face.verdict for face in faces] == [Verdict.REAL] * 3 + [Verdict.UNCERTAIN] * 2
    assert [(face.score, face.reason) for face in faces[1:]] == [(None, None)] * 2 + [(None, "too dark")] * 2
    assert (faces[-1].track, faces[-1].track_score) == (1, None)


@pytest.mark.parametrize("seconds", [0.001, 3.0])
def test_a_video_is_followed_in_its_own_time(follow, blue, seconds, monkeypatch):
    monkeypatch.setattr("edge_runtime.judging.tracking.CUT", 256.0)
    faces = follow([blue] + [BLACK] * 60, seconds, fps=25.0)
    assert [(face.track, face.verdict) for face in faces[50:52]] == [(1, Verdict.REAL), (1, Verdict.UNCERTAIN)]


def test_still_pictures_are_not_averaged(engine, red, blue):
    scorer, verdicts = FrameScorer(engine), Verdicts(engine.contract)
    faces = [verdicts.of_frame(scorer(still(picture))).faces[0] for picture in (red, red, red, blue)]
    assert [face.verdict for face in faces] == [Verdict.FAKE] * 3 + [Verdict.REAL]
    assert {face.track for face in faces} == {None}


def test_another_network_or_a_loss_ends_tracks(engine, red, blue):
    scorer, verdicts = FrameScorer(engine, moving_faces=FixedFaces((0, 0, 64, 64))), Verdicts(engine.contract)
    for number in range(5):
        verdicts.of_frame(scorer(moving(red, number, 0.04 * number)))
    other = dataclasses.replace(scorer(moving(blue, 5, 0.2)), choice=Choice("CPU", Precision.FP32))
    (face,) = verdicts.of_frame(other).faces
    assert (face.verdict, face.track) == (Verdict.REAL, 2)
    assert verdicts.of_gap(Gap("clip", SourceState.LOST, "unplugged")).state is SourceState.LOST
    assert verdicts.of_frame(scorer(moving(red, 6, 0.3))).faces[0].track == 3


def test_an_unreadable_picture_becomes_its_error(engine):
    def broken():
        raise PictureError("a.jpg: broken")

    result = Verdicts(engine.contract).of_frame(FrameScorer(engine)(Frame("a.jpg", 0, broken, still=True)))
    assert (result.error, result.faces, result.width) == ("a.jpg: broken", (), 0)


def test_a_demonstration_model_is_named_in_gaps_too(engine):
    verdicts = Verdicts(engine.contract.replace(demo=True))
    assert verdicts.of_gap(Gap("clip", SourceState.LOST)).notice == DEMO_NOTICE


def test_a_detected_face_is_shown_with_its_margin(bundle, make_bundle, tmp_path):
    framed = Bundle.open(make_bundle(tmp_path / "detector", framing=Framing.DETECTED, margin=1.0))
    picture = Image.new("RGB", (256, 256), (30, 120, 230))
    noise = np.random.default_rng(1).integers(0, 40, (96, 96, 3), np.uint8)
    picture.paste(Image.fromarray(noise + np.array([200, 80, 0], np.uint8)), (80, 80))
    logits = [
        FrameScorer(Engine(which, choose(which)), still_faces=FixedFaces((80, 80, 176, 176)))(still(picture))
        .faces[0]
        .logit
        for which in (bundle, framed)
    ]
    assert logits[0] > logits[1] + 1.0


def test_a_clock_jump_makes_no_negative_age(engine, red):
    frame = dataclasses.replace(still(red), time=datetime(2099, 1, 1, tzinfo=timezone.utc))
    result = Verdicts(engine.contract).of_frame(FrameScorer(engine)(frame))
    assert 0 <= result.latency_ms <= result.age_ms < 1e6
    assert result.time.year == 2099
