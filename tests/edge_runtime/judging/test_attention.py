import numpy as np
import pytest

from edge_runtime.judging.attention import (
    CALM,
    FRESH,
    MOVED,
    REST_AFTER_S,
    STEADY_SEARCHES,
    CropBudget,
    Searches,
    Standing,
    Stillness,
    neediest,
)

FRAME_S = 0.04


def searched_frames(searches, first, count, tracks=(1,), fps=25.0):
    """Return which of `count` frames from number `first` are searched, with what each search finds."""
    found = []
    for number in range(first, first + count):
        now = number / fps
        if searches.due(now, 1 / fps):
            searches.searched(now, tracks)
            found.append(number)
    return found


def test_every_frame_is_searched_until_tracks_are_steady_then_five_per_second():
    searches = Searches()
    assert searched_frames(searches, 0, STEADY_SEARCHES) == [0, 1, 2]
    assert searched_frames(searches, 3, 25) == [7, 12, 17, 22, 27]
    # A new track: every frame until it is steady.
    assert searched_frames(searches, 28, 10, tracks=(1, 2)) == [32, 33, 34]
    searches.unsettle()
    assert searched_frames(searches, 38, 5, tracks=(1, 2)) == [38, 39, 40]


@pytest.mark.parametrize(("fps", "least", "most"), [(60.0, 4, 5), (10.0, 4, 5), (5.0, 5, 5), (3.0, 3, 3)])
def test_searches_per_second_follow_the_frame_rate(fps, least, most):
    searches = Searches()
    searched_frames(searches, 0, STEADY_SEARCHES, fps=fps)
    seconds = 4
    found = searched_frames(searches, STEADY_SEARCHES, round(seconds * fps), fps=fps)
    assert least * seconds <= len(found) <= most * seconds
    assert max(np.diff(found)) / fps <= max(0.4, 1 / fps)


def test_a_flickering_face_keeps_every_frame_searched():
    searches, searched = Searches(), 0
    for number in range(50):
        if searches.due(number * FRAME_S, FRAME_S):
            searches.searched(number * FRAME_S, (1,) if number % 2 else ())
            searched += 1
    assert searched == 50


def rest(stillness, first, count, cells, settled=True):
    return [stillness.update(cells, number * FRAME_S, settled=settled) for number in range(first, first + count)]


def test_a_picture_rests_after_a_second_and_wakes_at_once():
    stillness, grey = Stillness(), np.full((36, 64), 100.0)
    seen = rest(stillness, 0, 50, grey)
    assert seen.index(True) == round(REST_AFTER_S / FRAME_S)
    assert all(seen[25:])
    assert stillness.update(grey + MOVED + 1, 50 * FRAME_S, settled=True) is False
    assert not any(rest(stillness, 51, 24, grey + MOVED + 1))


def test_rest_has_hysteresis():
    between = np.full((36, 64), 100.0)
    between[::2] += 2 * (CALM + MOVED) / 2
    # Mean of the difference is 0.5 levels: more than calm begins with, less than ends it. Cells are whole levels.
    between = np.rint(between)
    calm, moving = Stillness(), Stillness()
    rest(calm, 0, 50, np.full((36, 64), 100.0))
    assert all(rest(calm, 50, 10, between))
    for number in range(100):
        assert not moving.update(between if number % 2 else np.full((36, 64), 100.0), number * FRAME_S, settled=True)


def test_noise_rests_but_a_small_face_or_slow_change_does_not():
    random = np.random.default_rng(1)
    stillness, grey = Stillness(), random.integers(40, 200, (36, 64)).astype(float)
    noisy = [np.rint(grey + random.normal(0, 0.3, grey.shape)) for _ in range(60)]
    assert [stillness.update(cells, number * FRAME_S, settled=True) for number, cells in enumerate(noisy)][-1]
    face = grey.copy()
    face[10:12, 20:22] += 40
    assert not stillness.update(face, 60 * FRAME_S, settled=True)
    slow = Stillness()
    seen = [slow.update(np.full((36, 64), 60.0 + number // 10), number * FRAME_S, settled=True) for number in range(99)]
    assert not any(seen)


def test_rest_waits_until_faces_are_settled():
    stillness, grey = Stillness(), np.full((36, 64), 100.0)
    assert not any(rest(stillness, 0, 100, grey, settled=False))
    assert stillness.update(grey, 100 * FRAME_S, settled=True)


def judged_at(now, age_s, *, looks=9, uncertain=False):
    return Standing(looks=looks, looked=now - age_s, judged=now - age_s, uncertain=uncertain)


def test_new_then_overdue_then_uncertain_faces_are_judged_first():
    now = 10.0
    standings = [
        judged_at(now, 0.2),
        judged_at(now, 0.15, uncertain=True),
        judged_at(now, 0.45),
        judged_at(now, 0.04, looks=FRESH - 1),
        Standing(),
    ]
    order = [set(neediest(standings, count, now)) for count in range(6)]
    assert order == [set(), {4}, {4, 3}, {4, 3, 2}, {4, 3, 2, 1}, {0, 1, 2, 3, 4}]
    assert neediest(standings, 2, now) == [3, 4]


@pytest.mark.parametrize(("faces", "crops_per_s"), [(5, 12.5), (8, 20.0)])
def test_every_steady_track_is_judged_twice_a_second(faces, crops_per_s):
    standings = [judged_at(0.0, 0.1 * number, uncertain=number < 3) for number in range(faces)]
    looks = [[] for _ in range(faces)]
    for turn in range(round(10 * crops_per_s)):
        now = turn / crops_per_s
        for index in neediest(standings, 1, now):
            standings[index].looked = now
            looks[index].append(now)
    assert max(np.diff(times).max() for times in looks) <= 0.5 + 1 / crops_per_s


def test_the_budget_is_what_the_device_answers_in_time():
    budget = CropBudget()
    assert budget.room(0.06, 1) == 1
    assert budget.started(1) == 1
    assert budget.room(0.06, 1) == 0
    budget.finished(1, 0.05, 1)
    assert [budget.room(left_s, 1) for left_s in (0.04, 0.06, 0.11, -1.0)] == [1, 1, 2, 1]
    assert budget.room(0.06, 4) == 4
    budget.started(1)
    assert [budget.room(left_s, 1) for left_s in (0.04, 0.06, 0.11)] == [0, 0, 1]
    # An overdue track may wait for the crop in work.
    assert budget.room(0.04, 1, overdue=True) == 1
    budget.started(1)
    assert budget.room(0.04, 1, overdue=True) == 0


def test_a_clear_verdict_is_renewed_ten_times_a_second_and_others_in_every_frame():
    now, interval_s = 10.0, 0.04
    clear = [judged_at(now, frames * interval_s, looks=15).wants(now, interval_s) for frames in (1, 2, 3)]
    assert clear == [False, True, True]
    assert judged_at(now, interval_s, looks=15, uncertain=True).wants(now, interval_s)
    assert judged_at(now, interval_s, looks=14).wants(now, interval_s)
    assert judged_at(now, 0.1, looks=99).wants(now, 0.1)
