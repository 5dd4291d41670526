import json
import time

import numpy as np
import openvino as ov
import pytest
from helpers.waiting import until
from openvino import opset13 as ops

from benchmarks.studies.small import SIZE, small_contract, write_small_bundle
from edge_runtime.cli import main
from edge_runtime.detector import Detector
from edge_runtime.errors import DeviceError
from edge_runtime.judging.scorer import Verdicts
from edge_runtime.model.bundle import Bundle
from edge_runtime.model.contract import PixelRecipe, Verdict
from edge_runtime.pipeline import Judged
from edge_runtime.review.selection import KeptFor
from edge_runtime.review.shadow import BURST_S, SHARE, Budget, Shadow
from edge_runtime.sinks.review import ReviewSink
from edge_runtime.sinks.shadow import PER_TRACK, ShadowSink
from edge_runtime.sources import Frame

ALWAYS = 1e9
"""A share of the time that never ends."""


def blueness():
    """A network that says the opposite of the small one."""
    pixels = ops.parameter([1, 3, SIZE, SIZE], np.float32, name="pixels")
    pooled = ops.reduce_mean(pixels, ops.constant(np.array([2, 3])), keep_dims=False)
    weights = np.array([[2, 0, -2], [-2, 0, 2]], np.float32)
    return ov.Model([ops.matmul(pooled, ops.constant(weights), False, True)], [pixels], "blueness")


@pytest.fixture(scope="module")
def opposite(tmp_path_factory):
    folder = tmp_path_factory.mktemp("opposite") / "next"
    return Bundle.open(write_small_bundle(folder, small_contract(version="2.0.0"), network=blueness()))


@pytest.fixture(scope="module")
def detector(bundle_path):
    return Detector(bundle_path, device="CPU", faces="off")


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def test_budget_is_a_share_of_the_time():
    """Work of 50 ms that is offered every 10 ms for 100 s gets 12 % of it."""
    clock, worked = Clock(), 0.0
    budget = Budget(0.12, clock)
    while clock.now < 200.0:
        clock.now += 0.01
        if budget.is_left:
            budget.spend(0.05)
            worked += 0.05
    assert worked == pytest.approx(12.0, abs=0.1)


def test_a_quiet_night_saves_up_little():
    clock = Clock()
    budget = Budget(0.12, clock)
    clock.now += 36_000.0
    assert budget.is_left
    budget.spend(BURST_S)
    assert not budget.is_left


def test_a_busy_shadow_keeps_to_its_share(detector, tmp_path, picture_of_colour):
    """Offered a frame every few milliseconds, a large network takes its share and at most one frame more."""
    spent = []

    class Watched(Budget):
        def spend(self, seconds):
            spent.append(seconds)
            super().spend(seconds)

    contract = small_contract(input_size=768, pixels=PixelRecipe(resize_to=768))
    bundle = Bundle.open(write_small_bundle(tmp_path / "large", contract))
    picture = picture_of_colour(230, 30, size=(800, 800))
    judged = judged_by(detector, picture)
    shadow = Shadow(bundle, budget=Watched())
    began = time.monotonic()
    while time.monotonic() - began < 3.0:
        shadow.offer(judged.scored, judged.result, (0,))
        time.sleep(0.003)
    shadow.close()
    passed = time.monotonic() - began
    assert spent
    assert sum(spent[:-1]) <= SHARE * passed + max(spent)


def judged_by(detector, picture, *, index=0, still=True, verdicts=None):
    frame = Frame("door", index, lambda: picture, still=still, taken=float(index))
    scored = detector.scorer(frame)
    verdicts = verdicts or Verdicts(detector.bundle.contract)
    return Judged(verdicts.of_frame(scored), scored.picture, still=still, scored=scored)


def wait_for(shadow):
    until = time.monotonic() + 20.0
    while shadow.is_busy and time.monotonic() < until:
        time.sleep(0.01)


def test_both_judge_the_same_crops(detector, red, tmp_path):
    """The same network as its own shadow gives the same score, to the last digit of a line."""
    shadow = Shadow(detector.bundle, budget=Budget(ALWAYS))
    judged = judged_by(detector, red)
    time.sleep(0.01)
    assert shadow.offer(judged.scored, judged.result, (0,))
    shadow.close()
    ((compared),) = shadow.take()
    ((index, old, new),) = compared.faces
    assert index == 0
    assert (old.verdict, new.verdict) == (Verdict.FAKE, Verdict.FAKE)
    assert new.score == pytest.approx(old.score, abs=1e-6)


def test_disagreements_become_lines(detector, opposite, red, blue, tmp_path):
    path = tmp_path / "disagreements.jsonl"
    shadow = Shadow(opposite, budget=Budget(ALWAYS))
    with ShadowSink(path, shadow) as sink:
        for index, picture in enumerate((red, blue)):
            sink.write(judged_by(detector, picture, index=index))
            wait_for(shadow)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["old"]["verdict"], line["new"]["verdict"]) for line in lines] == [("fake", "real"), ("real", "fake")]
    assert {(line["shadow"], line["source"], line["telling"], line["picture"]) for line in lines} == {
        ("2.0.0", "door", True, None)
    }
    assert lines[0]["new"]["score"] < 0.01 < 0.99 < lines[0]["old"]["score"]
    assert (sink.counts.compared, sink.counts.differ, sink.counts.telling) == (2, 2, 2)
    assert "2 faces compared, 2 disagreements" in sink.text()


def test_agreement_leaves_no_line(detector, red, tmp_path):
    path = tmp_path / "disagreements.jsonl"
    with ShadowSink(path, Shadow(detector.bundle, budget=Budget(ALWAYS))) as sink:
        sink.write(judged_by(detector, red))
    assert path.read_bytes() == b""
    assert sink.counts.compared == 1


def test_a_track_counts_once(detector, opposite, red, tmp_path):
    path, verdicts = tmp_path / "disagreements.jsonl", Verdicts(detector.bundle.contract)
    shadow = Shadow(opposite, budget=Budget(ALWAYS))
    with ShadowSink(path, shadow) as sink:
        for index in range(4):
            sink.write(judged_by(detector, red, index=index, still=False, verdicts=verdicts))
            wait_for(shadow)
    assert len(path.read_text().splitlines()) == 1
    assert sink.counts.compared <= 2


def test_a_track_is_compared_a_few_times(detector, red, tmp_path):
    verdicts, shadow = Verdicts(detector.bundle.contract), Shadow(detector.bundle, budget=Budget(ALWAYS))
    with ShadowSink(tmp_path / "disagreements.jsonl", shadow) as sink:
        for index in range(2 * PER_TRACK):
            sink.write(judged_by(detector, red, index=index, still=False, verdicts=verdicts))
            wait_for(shadow)
    assert sink.counts.compared == PER_TRACK


def test_faces_are_dropped_without_time(detector, opposite, red, tmp_path):
    shadow = Shadow(opposite, budget=Budget(0.0))
    with ShadowSink(tmp_path / "disagreements.jsonl", shadow) as sink:
        sink.write(judged_by(detector, red))
    assert sink.counts.compared == 0


def test_pictures_are_kept_only_for_review(detector, opposite, red, tmp_path):
    options = {"purpose": "next model", "public_keys": [], "days": 1.0, "per_hour": 9, "per_day": 9, "sample": 0.0}
    review = ReviewSink(tmp_path / "review", **options)
    path, shadow = tmp_path / "disagreements.jsonl", Shadow(opposite, budget=Budget(ALWAYS))
    with review, ShadowSink(path, shadow, review) as sink:
        sink.write(judged_by(detector, red))
    (line,) = map(json.loads, path.read_text().splitlines())
    (kept,) = (tmp_path / "review").glob("*.png")
    assert kept.name == line["picture"]
    assert f"-{KeptFor.SHADOW.value}-" in kept.name


def test_edge_detect_takes_a_shadow(bundle_path, opposite, red, blue, tmp_path, monkeypatch, capsys):
    """Real pictures through the command; the shadow's crops are kept, since --review asks for them."""
    monkeypatch.setattr("edge_runtime.review.shadow.SHARE", ALWAYS)
    for name, picture in (("red", red), ("blue", blue)):
        (tmp_path / "in").mkdir(exist_ok=True)
        picture.save(tmp_path / "in" / f"{name}.jpg", quality=95)
    words = ["edge-detect", tmp_path / "in", "--model", bundle_path, "--shadow", opposite.path, "--no-tune"]
    words += ["--disagreements", tmp_path / "out.jsonl", "--review", tmp_path / "review", "--review-unencrypted"]
    words += ["--review-purpose", "next model", "--review-sample", "0"]
    monkeypatch.setattr("sys.argv", list(map(str, words)))
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    # The second picture is offered while the first may be in work.
    assert 1 <= len(lines) <= 2
    assert {line["picture"] for line in lines} == {path.name for path in (tmp_path / "review").glob("*.png")}
    assert f"{len(lines)} disagreements" in capsys.readouterr().err


def test_missing_shadow_is_named(bundle_path, red, tmp_path, monkeypatch, capsys):
    red.save(tmp_path / "red.png")
    words = ["edge-detect", tmp_path / "red.png", "--model", bundle_path, "--shadow", tmp_path / "none", "--no-tune"]
    monkeypatch.setattr("sys.argv", list(map(str, words)))
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "none" in capsys.readouterr().err


@pytest.mark.parametrize("error", [DeviceError("the CPU is gone"), MemoryError("no room")])
def test_a_failing_shadow_does_not_end_the_run(detector, opposite, red, tmp_path, monkeypatch, caplog, error):
    shadow = Shadow(opposite, budget=Budget(ALWAYS))

    def fail(pixels):
        raise error

    monkeypatch.setattr(shadow.engine, "answer", fail)
    with ShadowSink(tmp_path / "disagreements.jsonl", shadow) as sink:
        for index in range(3):
            sink.write(judged_by(detector, red, index=index))
            until(lambda: not shadow.is_busy)
        assert caplog.text.count(f"the shadow detector stopped: {sink.failure}") == 1
    assert sink.text().startswith("shadow 2.0.0 stopped: ")
    assert str(error) in sink.text()


def test_equal_versions_are_told_apart_by_nobody(detector, bundle_path, red, tmp_path, caplog):
    with ShadowSink(tmp_path / "disagreements.jsonl", Shadow(Bundle.open(bundle_path))) as sink:
        for index in range(2):
            sink.write(judged_by(detector, red, index=index))
    assert caplog.text.count("give export-openvino another --version") == 1
