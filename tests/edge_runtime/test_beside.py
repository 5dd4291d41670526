"""Classifier on a device of its own, everything else on the CPU: both work at the same time."""

import os
import threading
import time

import numpy as np
import pytest

from edge_runtime.detector import Detector
from edge_runtime.inference.engine import Choice, Engine
from edge_runtime.inference.faces import DetectedFace
from edge_runtime.judging.scorer import FrameScorer
from edge_runtime.model.contract import Precision
from edge_runtime.sources import Frame, Source
from edge_runtime.sources.opencv import CvView

FRAMES, CORES = 40, 2
PATIENCE_S = 20.0


class Graphics:
    """A device that judges one crop at a time in `crop_s`, and only while `may_work` is set, without the CPU."""

    requests = 1

    def __init__(self, crop_s=0.0):
        self.crop_s, self.crops, self._lock = crop_s, 0, threading.Lock()
        self.began, self.may_work = threading.Event(), threading.Event()
        self.may_work.set()

    def logits(self, pixels):
        self.began.set()
        assert self.may_work.wait(PATIENCE_S)
        with self._lock:
            time.sleep(self.crop_s * len(pixels))
            self.crops += len(pixels)
        return np.tile(np.float32([-1, 1]), (len(pixels), 1))

    rows = logits


class Finder:
    """A face detector that takes `search_s` on one of CORES cores, and counts the frames it has seen."""

    def __init__(self, search_s=0.0):
        self._search_s, self.searched, self._changed = search_s, 0, threading.Condition()
        self._cores = threading.Semaphore(CORES)

    def detect(self, picture):
        with self._cores:
            time.sleep(self._search_s)
        with self._changed:
            self.searched += 1
            self._changed.notify_all()
        return [DetectedFace((40.0, 40.0, 104.0, 104.0), 0.9)]

    def wait_for(self, count):
        with self._changed:
            return self._changed.wait_for(lambda: self.searched >= count, PATIENCE_S)


class Scene(Source):
    """Noise that moves, as a file or a camera of 25 frames/s."""

    name = "scene"

    def __init__(self, *, live=False, frames=FRAMES):
        self.live, self._frames = live, frames

    def frames(self, stop):
        random = np.random.default_rng(5)
        for number in range(self._frames):
            view = CvView(random.integers(60, 200, (240, 320, 3), np.uint8))
            yield Frame(self.name, number, view, position_s=None if self.live else number / 25)
            if self.live:
                stop.wait(0.04)


def detector_with(bundle, device, finder, **options):
    detector = Detector(bundle, **options)
    detector.engine = Engine(bundle, Choice("GPU", Precision.FP32), build=lambda *_, **__: device)
    detector.scorer = FrameScorer(detector.engine, moving_faces=finder)
    return detector


@pytest.mark.parametrize("cores", [2, 4, 8])
def test_every_core_works_on_while_the_device_is_busy(bundle, monkeypatch, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    device, finder = Graphics(), Finder()
    device.may_work.clear()
    results = []
    pipeline = detector_with(bundle, device, finder).pipeline([Scene()])
    thread = threading.Thread(target=lambda: results.extend(pipeline.results()))
    thread.start()
    assert finder.wait_for(1 + cores)
    assert device.crops == 0
    device.may_work.set()
    thread.join(PATIENCE_S)
    assert [judged.result.frame for judged in results] == list(range(FRAMES))
    assert device.crops == FRAMES


def test_a_camera_searches_the_next_frame_while_the_device_is_busy(bundle):
    device, finder = Graphics(), Finder()
    device.may_work.clear()
    pipeline = detector_with(bundle, device, finder, always=True).pipeline([Scene(live=True, frames=500)])
    thread = threading.Thread(target=lambda: list(pipeline.results()))
    thread.start()
    assert finder.wait_for(2)
    device.may_work.set()
    pipeline.stop()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def test_with_attention_no_frame_waits_for_a_busy_device(bundle):
    device, finder = Graphics(), Finder()
    device.may_work.clear()
    pipeline = detector_with(bundle, device, finder).pipeline([Scene(live=True, frames=500)])
    results = []
    for judged in pipeline.results():
        results.append(judged.result)
        if len(results) == 20:
            device.may_work.set()
        elif len(results) == 40:
            pipeline.stop()
    assert device.began.is_set()
    assert {face.score for result in results[:20] for face in result.faces} == {None}
    assert finder.searched >= 3
    assert any(face.track_score is not None for result in results[20:] for face in result.faces)


@pytest.mark.slow
@pytest.mark.parametrize(("search_s", "crop_s"), [(0.03, 0.024), (0.07, 0.024)])
def test_throughput_is_that_of_the_slower_stage(bundle, monkeypatch, search_s, crop_s):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(CORES)))
    detector = detector_with(bundle, Graphics(crop_s), Finder(search_s))
    began = time.monotonic()
    assert sum(len(judged.result.faces) for judged in detector.pipeline([Scene()]).results()) == FRAMES
    seconds = time.monotonic() - began
    slower_s, sum_s = FRAMES * max(crop_s, search_s / CORES), FRAMES * (crop_s + search_s / CORES)
    assert slower_s <= seconds < (slower_s + sum_s) / 2
