import math

from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.judging.tracking import Tracker, trimmed_mean
from edge_runtime.pixels.boxes import overlaps

LEFT, RIGHT = (0.0, 0.0, 100.0, 100.0), (300.0, 0.0, 400.0, 100.0)


def shifted(box, x):
    return (box[0] + x, box[1], box[2] + x, box[3])


def test_a_moving_face_keeps_its_number():
    tracker = Tracker()
    numbers = {tracker.update([shifted(LEFT, 10.0 * step)], 0.04 * step)[0].number for step in range(20)}
    assert numbers == {1}


def test_the_order_of_boxes_does_not_matter():
    tracker = Tracker()
    first = [track.number for track in tracker.update([LEFT, RIGHT], 0.0)]
    second = [track.number for track in tracker.update([RIGHT, LEFT], 0.1)]
    assert second == first[::-1]


def test_the_best_overlap_wins():
    tracker = Tracker()
    tracker.update([LEFT], 0.0)
    near, nearer = tracker.update([shifted(LEFT, 40), shifted(LEFT, 5)], 0.1)
    assert (near.number, nearer.number) == (2, 1)


def test_a_face_is_remembered_for_the_gap():
    tracker = Tracker(max_gap_s=1.0)
    tracker.update([LEFT], 0.0)
    tracker.update([], 0.5)
    assert tracker.update([LEFT], 0.9)[0].number == 1
    assert tracker.update([LEFT], 5.0)[0].number == 2


def test_numbers_are_never_reused():
    tracker = Tracker()
    tracker.update([LEFT], 0.0)
    tracker.forget()
    assert tracker.update([LEFT], 0.1)[0].number == 2


def test_one_outlier_does_not_count():
    tracker = Tracker(window=15)
    for step in range(12):
        (track,) = tracker.update([LEFT], 0.04 * step)
        tracker.judge(track, -300.0 if step == 6 else 2.0)
    assert track.logit == 2.0


def test_only_the_window_counts():
    tracker = Tracker(window=4)
    (track,) = tracker.update([LEFT], 0.0)
    for logit in [-9.0] * 10 + [5.0] * 4:
        tracker.judge(track, logit)
    assert track.logit == 5.0


def test_an_unjudged_track_has_no_logit():
    (track,) = Tracker().update([LEFT], 0.0)
    assert track.logit is None


def test_old_logits_are_forgotten():
    tracker = Tracker(max_gap_s=2.0)
    for step, logit in enumerate([-9.0, 5.0, 5.0]):
        (track,) = tracker.update([LEFT], 1.5 * step)
        tracker.judge(track, logit)
    assert track.logit == 5.0
    tracker.update([LEFT], 4.5)
    tracker.update([LEFT], 6.0)
    assert (track.number, track.logit) == (1, None)


def test_overlap_is_intersection_over_union():
    assert overlaps((0, 0, 2, 2), [(1, 1, 3, 3), (0, 0, 2, 2), (5, 0, 7, 2)]).tolist() == [1 / 7, 1.0, 0.0]
    assert overlaps((0, 0, 0, 0), [(0, 0, 0, 0)]).tolist() == [0.0]
    assert overlaps(LEFT, []).tolist() == []


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=40))
def test_the_trimmed_mean_is_within_its_values(values):
    slack = 1e-9 * max(1.0, *map(abs, values))
    assert min(values) - slack <= trimmed_mean(values) <= max(values) + slack


def test_the_trimmed_mean_of_four_drops_the_ends():
    assert math.isclose(trimmed_mean([-1000.0, 1.0, 2.0, 1000.0]), 1.5)
