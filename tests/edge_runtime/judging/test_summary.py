"""Verdicts on whole files."""

import json
import math
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from PIL import Image
from rich.cells import cell_len

from benchmarks.studies.small import small_contract
from edge_runtime.judging.decide import reason_text
from edge_runtime.judging.results import FaceResult, FrameResult, Reason, SourceState
from edge_runtime.judging.summary import DOUBTS, FileVerdicts, fake_segments, logit, probability
from edge_runtime.judging.summary_text import clock, shortened, summary_text, video_lines
from edge_runtime.judging.tracking import Shots
from edge_runtime.model.contract import Calibration, ContractError, ModelContract, Verdict
from edge_runtime.pipeline import Judged
from edge_runtime.sources import Source

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=timezone.utc)


class Given(Source):
    """A source that is only named."""

    def __init__(self, name, live=False):
        self.name, self.live, self.endless = name, live, live


VIDEO, FOLDER, CAMERA = Given("v.mp4"), Given("in"), Given("cam", live=True)


def contract(**changes):
    return small_contract(calibrations={"int8": Calibration(low=0.2, high=0.8, **changes)})


def face(track, score, verdict=Verdict.UNCERTAIN):
    return FaceResult((0, 0, 9, 9), None, track, score, verdict)


def judged_video(scores, files=None):
    """Return the verdict on a video of 25 frames a second; `scores` has each face's, None where it can't be judged."""
    files = files or FileVerdicts(contract(), "detector")
    for number in range(max(len(values) for values in scores.values())):
        faces = tuple(face(track, values[number]) for track, values in scores.items() if number < len(values))
        result = FrameResult("v.mp4", number, NOW, precision="int8", faces=faces)
        files.add(Judged(result, position_s=number / 25, given=VIDEO))
    return files.videos()[0]


def test_one_fake_face_makes_a_video_fake():
    video = judged_video({1: [0.05] * 40, 2: [0.9] * 40, 3: [0.95] * 15})
    assert [item.verdict for item in video.faces] == [Verdict.REAL, Verdict.FAKE, Verdict.UNCERTAIN]
    assert (video.verdict, video.score) == (Verdict.FAKE, pytest.approx(0.9))
    assert video.faces[2].score is None
    assert video.faces[2].median == pytest.approx(0.95)


@pytest.mark.parametrize(
    ("scores", "verdict"),
    [
        ([0.1] * 40, Verdict.REAL),
        ([0.5] * 40, Verdict.UNCERTAIN),
        ([0.1] * 36 + [0.999] * 4, Verdict.REAL),
        ([None, 0.9] * 16, Verdict.FAKE),
        ([None, 0.9] * 15, Verdict.UNCERTAIN),
        ([0.9] * 16 + [None] * 100, Verdict.UNCERTAIN),
        ([0.9] * 40 + [None] * 100, Verdict.UNCERTAIN),
        ([1.0] * 40, Verdict.FAKE),
    ],
    ids=["real", "between", "outliers", "16 judged", "15 judged", "all at the start", "fake at the start", "certain"],
)
def test_a_face_needs_frames_from_all_over(scores, verdict):
    assert judged_video({1: scores}).verdict is verdict


@pytest.mark.parametrize(("share", "verdict"), [(2, Verdict.FAKE), (4, Verdict.UNCERTAIN)])
def test_a_face_that_is_mostly_unlike_stays_uncertain(share, verdict):
    files = FileVerdicts(contract(), "detector")
    for number in range(80):
        seen = replace(face(1, 0.99), reason_code=Reason.UNLIKE if number % 5 < share else None)
        result = FrameResult("v.mp4", number, NOW, precision="int8", faces=(seen,))
        files.add(Judged(result, position_s=number / 25, given=VIDEO))
    video = files.videos()[0]
    reason = "unlike the faces it learned from" if verdict is Verdict.UNCERTAIN else None
    assert [(found.verdict, found.reason) for found in (video, video.faces[0])] == 2 * [(verdict, reason)]
    assert bool(video.fake_s) == (verdict is Verdict.FAKE)


def test_a_moment_counts_for_its_length_only():
    # Half of the judged frames lie in the last eighth of the track.
    scores = [0.1 if number % 8 == 0 else None for number in range(280)] + [0.999] * 40
    assert judged_video({1: scores}).verdict is not Verdict.FAKE


def test_parts_that_are_fake_are_named():
    video = judged_video({1: [0.01] * 100 + [0.999] * 60 + [0.01] * 140})
    assert (video.verdict, video.reason) == (Verdict.UNCERTAIN, "fake in parts")
    ((begin, end),) = video.fake_s
    assert (begin, end) == (4.0, 6.36)
    short = judged_video({1: [0.999] * 40 + [None] * 200})
    assert (short.score, short.reason, short.fake_s) == (None, "fake in parts", ((0.0, 1.56),))
    assert fake_segments(np.arange(20.0), np.full(20, 9.0), 1.0) == ()


def test_the_bundles_thresholds_for_videos_count():
    scores = {1: [0.6] * 40}
    assert judged_video(scores).verdict is Verdict.UNCERTAIN
    files = FileVerdicts(contract(video_low=0.1, video_high=0.55), "detector")
    assert judged_video(scores, files=files).verdict is Verdict.FAKE
    again = ModelContract.from_dict(json.loads(json.dumps(contract(video_low=0.1, video_high=0.55).to_dict())))
    assert again.calibration("int8").for_videos().high == 0.55
    assert "video_low" not in json.dumps(contract().to_dict())
    for low, high in ((0.1, None), (0.6, 0.5)):
        with pytest.raises(ContractError, match="thresholds"):
            Calibration(video_low=low, video_high=high)


def test_pictures_are_counted_by_their_worst_face():
    files = FileVerdicts(contract(), "detector")
    kinds = [(), (Verdict.REAL,), (Verdict.REAL, Verdict.UNCERTAIN), (Verdict.REAL, Verdict.FAKE, Verdict.UNCERTAIN)]
    for number, verdicts in enumerate(kinds):
        result = FrameResult(f"in/{number}.jpg", 0, NOW, faces=tuple(face(None, 0.5, kind) for kind in verdicts))
        files.add(Judged(result, still=True, given=FOLDER))
    files.add(Judged(FrameResult("in/x.jpg", 0, NOW, error="broken"), still=True, failed=True, given=FOLDER))
    files.add(Judged(FrameResult("in/secret", 0, NOW, SourceState.ENDED, error="denied"), failed=True, given=FOLDER))
    assert summary_text(files).startswith("1 real, 1 fake, 1 uncertain, 2 unreadable, 1 without a face\n")
    (line,) = map(json.loads, files.json_lines())
    assert {key: line[key] for key in ("source", "state", "fake", "no_face", "unreadable")} == {
        "source": "in",
        "state": "summary",
        "fake": 1,
        "no_face": 1,
        "unreadable": 2,
    }


def test_cameras_are_left_out_and_long_names_fit():
    files = FileVerdicts(contract(), "detector")
    files.add(Judged(FrameResult("cam", 0, NOW, faces=(face(1, 0.5),)), given=CAMERA))
    assert (summary_text(files), list(files.json_lines())) == ("", [])
    name = "d" * 90 + "/v\x1b.mp4"
    for number in range(2):
        files.add(Judged(FrameResult(f"{name}{number}", 0, NOW), still=True, given=FOLDER))
    files.add(Judged(FrameResult(name, 0, NOW, faces=(face(1, 0.5),)), given=VIDEO))
    lines = summary_text(files, by_folder=True).splitlines()
    assert max(map(len, lines)) == 80
    assert "\x1b" not in "".join(lines)
    assert cell_len(shortened("假脸" * 30, 40)) == 39


@pytest.mark.parametrize("reason", [*sorted(DOUBTS, key=str), None])
def test_reasons_fit_a_terminal(reason):
    files = FileVerdicts(contract(), "detector")
    for number in range(80):
        seen = replace(face(1, 0.5 if reason is None else 0.99), reason_code=reason)
        result = FrameResult("v.mp4", number, NOW, precision="int8", faces=(seen,))
        files.add(Judged(result, position_s=3600 + number / 25, given=VIDEO))
    lines = summary_text(files).splitlines()
    assert max(map(len, lines)) <= 80
    words = reason_text(reason or Reason.BETWEEN_THRESHOLDS)
    assert " ".join(" ".join(lines).split()).count(f"uncertain, {words}") == 1
    assert " ".join(" ".join(lines).split()).count(f"uncertain: {words}") == 1


def test_of_many_faces_the_most_suspicious_are_shown():
    video = judged_video({track: [track / 1000] * 16 for track in range(100)})
    lines = list(video_lines(video))
    assert [int(line.split()[0]) for line in lines if line.endswith("  real")] == list(range(70, 100))
    assert "  70 more faces with lower scores" in lines


def test_odds_and_times():
    assert probability(logit(0.3)) == pytest.approx(0.3)
    assert math.isfinite(logit(0.0) + logit(1.0))
    assert [clock(value) for value in (0.0, 59.96, 75.25, 3671.0)] == ["0:00.0", "1:00.0", "1:15.2", "1:01:11.0"]


def test_a_cut_begins_a_shot(red, blue):
    random = np.random.default_rng(1)
    moving = [Image.fromarray(random.integers(0, 256, (90, 160, 3), np.uint8).astype(np.uint8)) for _ in range(3)]
    shots = Shots()
    assert [shots.is_new(picture) for picture in (red, red, blue, blue, red)] == [False, False, True, False, True]
    shots = Shots()
    assert not any(shots.is_new(picture) for picture in moving)


def test_a_clock_set_back_moves_no_times():
    """Standard input has no times of its own."""
    files = FileVerdicts(contract(), "detector")
    for number in range(64):
        time = NOW + timedelta(seconds=number / 25, hours=-(number // 40))
        result = FrameResult("-", number, time, precision="int8", faces=(face(1, 0.9),))
        files.add(Judged(result, taken=100 + number / 25, given=Given("-")))
    (video,) = files.videos()
    assert (video.faces[0].from_s, video.faces[0].to_s) == (0.0, pytest.approx(63 / 25))
    assert video.fake_s == ((0.0, pytest.approx(63 / 25)),)
