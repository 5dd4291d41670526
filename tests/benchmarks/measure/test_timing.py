import time

import pytest

from benchmarks.measure.cases import TimingLimits
from benchmarks.measure.timing import Brake, in_batches, in_threads, one_by_one


@pytest.mark.parametrize("way", [one_by_one, lambda s, i, li: in_threads(s, i, li, 2)])
def test_inputs_repeat_until_the_frame_limit(way):
    seen = []
    timing = way(seen.append, ["a", "b", "c"], TimingLimits(seconds=60, frames=7))
    assert sorted(seen) == sorted("abcabca")
    assert timing.frames == 7


def test_frames_have_the_latency_of_their_batch():
    seen = []
    timing = in_batches(seen.append, ["a", "b", "c"], TimingLimits(seconds=60, frames=4), 3)
    assert seen == [["a", "b", "c"], ["a", "b", "c"]]
    assert timing.frames == 6
    assert len(set(timing.latencies_ms[:3])) == 1


@pytest.mark.parametrize("way", [one_by_one, lambda s, i, li: in_threads(s, i, li, 2)])
def test_timing_ends_by_the_clock(way):
    assert way(lambda _: None, ["a"], TimingLimits(seconds=0.0)).frames >= 1
    assert 1 <= way(lambda _: time.sleep(0.02), ["a"], TimingLimits(seconds=0.05)).frames < 50


def test_error_in_a_thread_is_raised():
    def broken(_):
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        in_threads(broken, ["a"], TimingLimits(seconds=60, frames=3), 2)


def test_brake_sleeps_by_its_share():
    timing = one_by_one(Brake(1.0).sleep(lambda _: time.sleep(0.01)), ["a"], TimingLimits(seconds=60, frames=3))
    assert timing.latencies_ms.min() >= 20


def test_brake_computes_by_its_share_in_parallel():
    def work(_: str) -> None:
        end = time.thread_time() + 0.02
        while time.thread_time() < end:
            pass

    before = time.process_time()
    # The last frames lose some of their share: what another thread is still burning counts as burnt.
    in_threads(Brake(1.0).work(work), ["a"], TimingLimits(seconds=60, frames=20), 2)
    assert time.process_time() - before >= 18 * 0.04
