"""Live sources: losses, hanging drivers, and the start."""

import itertools
import threading
import time

import pytest
from PIL import Image

from edge_runtime.errors import SourceError
from edge_runtime.judging.results import SourceState
from edge_runtime.sources import Source, SourceOptions, open_sources
from edge_runtime.sources.reconnect import MOST_STUCK, LiveSource


class Hanging:
    """A capture whose read returns only when it is released."""

    opened = 0

    def __init__(self, release):
        Hanging.opened += 1
        self._release = release

    def read(self):
        self._release.wait(30)
        raise SourceError("released")

    def close(self):
        """Nothing is held."""


class Few:
    """A capture that gives a few frames and then fails."""

    def __init__(self, frames, error=None):
        self._left, self.closed, self._error = frames, False, error or SourceError("cam: gives no frame")

    def read(self):
        if self._left == 0:
            raise self._error
        self._left -= 1
        return lambda: Image.new("RGB", (4, 4))

    def close(self):
        self.closed = True


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr("edge_runtime.sources.reconnect.FIRST_WAIT_S", 0.01)
    monkeypatch.setattr("edge_runtime.sources.reconnect.LONGEST_WAIT_S", 0.02)
    monkeypatch.setattr("edge_runtime.sources.reconnect.SLICE_S", 0.02)


def test_hanging_reads_do_not_pile_up_threads():
    release = threading.Event()
    Hanging.opened = 0
    source = LiveSource("cam", lambda: Hanging(release), SourceOptions(stall_timeout_s=0.04, give_up_after_s=0.6))
    gaps = list(source.frames(threading.Event()))
    release.set()
    assert Hanging.opened == MOST_STUCK
    assert [gap.state for gap in gaps] == [SourceState.LOST, SourceState.ENDED]


def test_a_loss_is_one_gap_and_numbers_go_on():
    captures = [Few(2, RuntimeError("driver")), Few(0), Few(1)]
    opened, stop, seen = iter(captures), threading.Event(), []
    for item in LiveSource("cam", lambda: next(opened), SourceOptions()).frames(stop):
        seen.append(item)
        if getattr(item, "index", None) == 2:
            stop.set()
    assert [getattr(item, "index", "lost") for item in seen] == [0, 1, "lost", 2]
    assert captures[0].closed
    assert captures[1].closed


def test_a_slow_attempt_counts_as_waiting(monkeypatch):
    monkeypatch.setattr("edge_runtime.sources.reconnect.FIRST_WAIT_S", 0.3)
    monkeypatch.setattr("edge_runtime.sources.reconnect.LONGEST_WAIT_S", 0.3)
    tried = []

    def slow():
        tried.append(time.monotonic())
        time.sleep(0.25)
        raise SourceError("cam: does not answer")

    list(LiveSource("cam", slow, SourceOptions(give_up_after_s=0.8)).frames(threading.Event()))
    assert len(tried) > 2
    assert max(after - before for before, after in itertools.pairwise(tried)) < 0.5


@pytest.mark.parametrize("proven_first", [True, False])
def test_a_proven_source_is_not_opened_twice(proven_first):
    opened = []
    source = LiveSource("cam", lambda: opened.append(Few(3)) or opened[-1], SourceOptions())
    if proven_first:
        source.prove()
    frames = source.frames(threading.Event())
    assert [next(frames).index, next(frames).index] == [0, 1]
    source.prove()
    assert len(opened) == 1
    frames.close()


def test_without_a_frame_a_source_is_not_proven():
    capture = Few(0)
    with pytest.raises(SourceError, match="gives no frame"):
        LiveSource("cam", lambda: capture, SourceOptions()).prove()
    assert capture.closed


class Slow(Source):
    """A source that takes long to answer."""

    name = "slow"

    def __init__(self):
        self.answer = threading.Event()

    def prove(self):
        self.answer.wait(20)


def test_no_source_waits_for_a_slow_one(monkeypatch):
    slow, quick = Slow(), LiveSource("cam", lambda: Few(3), SourceOptions())
    monkeypatch.setattr("edge_runtime.sources.open_source", lambda name, options: slow if name == "slow" else quick)
    began = time.monotonic()
    assert open_sources(["slow", "quick"]) == [slow, quick]
    assert time.monotonic() - began < 5.0
    slow.answer.set()
