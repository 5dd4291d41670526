import math

from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.judging.tracking import Tracker, trimmed_mean
from edge_runtime.pixels.boxes import overlaps

LEFT, RIGHT = (0.0, 0.0, 100.0, 100.0), (300.0, 0.0, 400.0, 100.0)


def shifted(box, x):
    return (box[0] + x, box[1], box[2] + x, box[3])


def test_a_face_that_moves_a_little_keeps_its_number():
    tracker = Tracker()
    numbers = {tracker.update([shifted(LEFT, 10.0 * step)], 0.04 * step)[0].number for step in range(20)}
    assert numbers == {1}


def test_two_faces_keep_their_numbers_when_their_order_changes():
    tracker = Tracker()
    first = [track.number for track in tracker.update([LEFT, RIGHT], 0.0)]
    second = [track.number for track in tracker.update([RIGHT, LEFT], 0.1)]
    assert second == first[::-1]


def test_the_best_overlap_wins_where_two_boxes_compete_for_one_track():
    tracker = Tracker()
    tracker.update([LEFT], 0.0)
    near, nearer = tracker.update([shifted(LEFT, 40), shifted(LEFT, 5)], 0.1)
    assert (near.number, nearer.number) == (2, 1)


def test_a_face_that_is_back_within_the_gap_keeps_its_number_and_later_gets_a_new_one():
    tracker = Tracker(max_gap_s=1.0)
    tracker.update([LEFT], 0.0)
    tracker.update([], 0.5)
    assert tracker.update([LEFT], 0.9)[0].number == 1
    assert tracker.update([LEFT], 5.0)[0].number == 2


def test_numbers_are_never_given_twice_even_after_all_was_forgotten():
    tracker = Tracker()
    tracker.update([LEFT], 0.0)
    tracker.forget()
    assert tracker.update([LEFT], 0.1)[0].number == 2


def test_one_wild_frame_does_not_change_a_tracks_logit_much():
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


def test_a_track_without_a_judged_frame_has_no_logit():
    (track,) = Tracker().update([LEFT], 0.0)
    assert track.logit is None


def test_what_was_judged_longer_ago_than_the_gap_counts_no_more():
    tracker = Tracker(max_gap_s=2.0)
    for step, logit in enumerate([-9.0, 5.0, 5.0]):
        (track,) = tracker.update([LEFT], 1.5 * step)
        tracker.judge(track, logit)
    assert track.logit == 5.0
    tracker.update([LEFT], 4.5)
    tracker.update([LEFT], 6.0)
    assert (track.number, track.logit) == (1, None)


def test_overlap_is_that_of_two_squares_on_paper():
    assert overlaps((0, 0, 2, 2), [(1, 1, 3, 3), (0, 0, 2, 2), (5, 0, 7, 2)]).tolist() == [1 / 7, 1.0, 0.0]
    assert overlaps((0, 0, 0, 0), [(0, 0, 0, 0)]).tolist() == [0.0]
    assert overlaps(LEFT, []).tolist() == []


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=40))
def test_the_trimmed_mean_lies_among_its_values(values):
    slack = 1e-9 * max(1.0, *map(abs, values))
    assert min(values) - slack <= trimmed_mean(values) <= max(values) + slack


def test_the_trimmed_mean_of_four_drops_the_ends():
    assert math.isclose(trimmed_mean([-1000.0, 1.0, 2.0, 1000.0]), 1.5)
