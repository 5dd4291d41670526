import threading
import time
from datetime import datetime, timezone
from itertools import count

import pytest
from PIL import Image

from edge_runtime.errors import DeviceError, SourceError
from edge_runtime.inference.engine import Choice
from edge_runtime.judging.results import FrameResult, SourceState
from edge_runtime.judging.scorer import ScoredFrame, Verdicts
from edge_runtime.model.contract import Calibration, ModelContract, Precision
from edge_runtime.pipeline import WAITING, Judged, Pipeline
from edge_runtime.run import Summary
from edge_runtime.sources import Frame, Gap

PICTURE = Image.new("RGB", (8, 8))


class Numbers:
    """A source of `total` frames; live ones come every `pause` seconds."""

    still = True

    def __init__(self, name, total, *, live=False, pause=0.0):
        self.name, self.live, self._total, self._pause = name, live, total, pause
        self.given, self.ended = 0, False

    def frames(self, stop):
        try:
            for number in range(self._total) if self._total else count():
                if stop.is_set():
                    return
                self.given += 1
                yield Frame(self.name, number, lambda: PICTURE, still=True)
                time.sleep(self._pause)
        finally:
            self.ended = True


def scored(frame, seconds=0.0):
    time.sleep(seconds)
    choice = Choice("CPU", Precision.INT8)
    return ScoredFrame(frame, frame.load(), (), time.monotonic(), choice, Calibration())


def pipeline(*sources, score=scored, workers=3):
    return Pipeline(sources, score, Verdicts(ModelContract("any")), workers=workers)


def numbers(pipe, name="a"):
    return [judged.result.frame for judged in pipe.results() if judged.result.source == name]


def test_files_lose_nothing_and_keep_their_order():
    def uneven(frame):
        return scored(frame, 0.005 if frame.index % 3 == 0 else 0.0)

    assert numbers(pipeline(Numbers("a", 100), score=uneven)) == list(range(100))


def test_the_newest_live_frame_wins():
    live = Numbers("a", 60, live=True)

    def slow(frame):
        until(lambda: live.ended)
        return scored(frame)

    results = [judged.result for judged in pipeline(live, score=slow, workers=1).results()]
    # Frames that came before the first one was taken vary; after that only the newest is left.
    assert len(results) <= 2
    assert results[-1].frame == 59
    assert results[-1].dropped == 60 - len(results)


def test_few_frames_of_a_file_wait():
    source = Numbers("a", 0)
    results = pipeline(source, workers=2).results()
    next(results)
    time.sleep(0.2)
    assert source.given <= 1 + 2 + WAITING + 2
    results.close()


def test_several_sources_take_turns():
    seen = [j.result.source for j in pipeline(Numbers("a", 40), Numbers("b", 40), workers=1).results()]
    assert seen.count("a") == seen.count("b") == 40
    assert "b" in seen[:15]
    assert "a" in seen[:15]


def test_leaving_early_closes_sources():
    before = threading.active_count()
    source = Numbers("a", 0)
    for number, _ in enumerate(pipeline(source).results()):
        if number == 10:
            break
    until(lambda: source.ended and threading.active_count() <= before)


def test_stop_finishes_the_frames_in_work():
    pipe = pipeline(Numbers("a", 0), score=lambda f: scored(f, 0.01))
    seen = []
    for judged in pipe.results():
        seen.append(judged.result.frame)
        if len(seen) == 5:
            pipe.stop()
    assert seen == list(range(len(seen)))
    assert pipe.stopped
    assert len(seen) <= 5 + 3


def test_gaps_stay_between_their_frames():
    class Lossy(Numbers):
        def frames(self, stop):
            yield Frame("a", 0, lambda: PICTURE)
            yield Gap("a", SourceState.LOST, "unplugged")
            yield Frame("a", 1, lambda: PICTURE)

    states = [j.result.state for j in pipeline(Lossy("a", 1)).results()]
    assert states == ["ok", "lost", "ok"]


def test_newer_frames_never_hide_a_loss():
    class Lossy(Numbers):
        def frames(self, stop):
            for number in range(20):
                yield Frame("a", number, lambda: PICTURE)
            yield Gap("a", SourceState.LOST, "unplugged")
            yield from (Frame("a", number, lambda: PICTURE) for number in range(20, 40))

    pipe = pipeline(Lossy("a", 1, live=True), workers=1)
    assert "lost" in [j.result.state for j in pipe.results()]


def test_a_source_that_fails_ends_alone():
    class Broken(Numbers):
        def frames(self, stop):
            yield Frame("bad", 0, lambda: PICTURE)
            raise SourceError("bad: broke")

    results = list(pipeline(Broken("bad", 1), Numbers("a", 5)).results())
    assert [j.result.error for j in results if j.failed] == ["bad: broke"]
    assert [j.result.frame for j in results if j.result.source == "a"] == list(range(5))


@pytest.mark.parametrize("error", [SourceError("a: gone"), OSError("Input/output error"), RecursionError("too deep")])
def test_a_source_that_raises_is_a_failed_input(error):
    class Raises(Numbers):
        def frames(self, stop):
            yield from super().frames(stop)
            raise error

    *_, last = pipeline(Raises("a", 2)).results()
    assert last.failed
    assert str(error) in last.result.error


def test_a_failing_device_ends_the_run():
    def fails(frame):
        raise DeviceError("the CPU is on fire")

    with pytest.raises(DeviceError, match="on fire"):
        list(pipeline(Numbers("a", 5), score=fails).results())


def test_ticks_continue_without_frames():
    ticks = []
    slow = Numbers("a", 2, live=True, pause=0.6)
    pipe = Pipeline([slow], scored, Verdicts(ModelContract("any")), workers=1)
    list(pipe.results(lambda: ticks.append(1)))
    assert len(ticks) >= 2


def test_hanging_work_is_visible():
    release, busy = threading.Event(), []

    def hangs(frame):
        release.wait(10)
        return scored(frame)

    pipe = pipeline(Numbers("a", 1), score=hangs)

    def tick():
        busy.append(pipe.busy_s)
        if len(busy) == 2:
            release.set()

    list(pipe.results(tick))
    assert busy[-1] >= 0.2


def until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    assert condition()


def test_a_summary_counts_failures():
    summary = Summary()
    for number in range(1000):
        gap = FrameResult(f"{number}.jpg", 0, datetime.now(timezone.utc), error=f"{number}.jpg: broken")
        summary.add(Judged(gap, failed=True))
    assert summary.failed == 1000
    assert summary.text().endswith("1000 failed")
