import time

import numpy as np
import pytest

from benchmarks.measure.cases import Limits
from benchmarks.measure.timing import Brake, Timing, in_batches, in_threads, one_by_one


@pytest.mark.parametrize("way", [one_by_one, lambda s, i, li: in_threads(s, i, li, 2)])
def test_frames_are_shown_in_a_circle_until_so_many_were_done(way):
    seen = []
    timing = way(seen.append, ["a", "b", "c"], Limits(seconds=60, frames=7))
    assert sorted(seen) == sorted("abcabca")
    assert timing.frames == 7


def test_batches_are_whole_and_every_frame_has_its_batchs_latency():
    seen = []
    timing = in_batches(seen.append, ["a", "b", "c"], Limits(seconds=60, frames=4), 3)
    assert seen == [["a", "b", "c"], ["a", "b", "c"]]
    assert timing.frames == 6
    assert len(set(timing.latencies_ms[:3])) == 1


@pytest.mark.parametrize("way", [one_by_one, lambda s, i, li: in_threads(s, i, li, 2)])
def test_a_timing_ends_when_its_seconds_are_over_and_has_one_frame_at_least(way):
    assert way(lambda _: None, ["a"], Limits(seconds=0.0)).frames >= 1
    assert 1 <= way(lambda _: time.sleep(0.02), ["a"], Limits(seconds=0.05)).frames < 50


def test_fps_are_frames_by_seconds_not_the_mean_of_one_by_latency():
    timing = Timing(2.0, np.array([100.0, 1900.0]))
    assert timing.fps == 1.0


def test_an_error_in_a_thread_is_not_swallowed():
    def broken(_):
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        in_threads(broken, ["a"], Limits(seconds=60, frames=3), 2)


def test_a_brake_makes_each_frame_longer_by_its_share():
    timing = one_by_one(Brake(1.0).sleep(lambda _: time.sleep(0.01)), ["a"], Limits(seconds=60, frames=3))
    assert timing.latencies_ms.min() >= 20


def test_side_by_side_a_brake_works_as_long_as_its_share_says():
    def work(_: str) -> None:
        end = time.thread_time() + 0.02
        while time.thread_time() < end:
            pass

    before = time.process_time()
    # At the very end a frame's share is lost: what another thread still has to burn counts as burnt.
    in_threads(Brake(1.0).work(work), ["a"], Limits(seconds=60, frames=20), 2)
    assert time.process_time() - before >= 18 * 0.04


def test_without_a_share_nothing_is_slowed():
    assert Brake(0.0).sleep(print) is print
    assert Brake(0.0).work(print) is print
