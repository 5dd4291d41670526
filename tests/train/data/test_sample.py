from dataclasses import replace

from train.data.build import load_data
from train.data.sample import alternate_classes, pick_faces, take_readable


def test_a_pick_is_balanced_and_repeats(faces):
    records = load_data(faces).records
    picked = pick_faces(records, 10)
    assert picked == pick_faces(records, 10) != pick_faces(records, 10, seed=7)
    assert sum(face.label for face in picked) == 5
    assert list(picked) == sorted(picked, key=records.index)
    assert pick_faces(records, None) == pick_faces(records, 1000) == records


def test_a_small_class_is_taken_whole(faces):
    records = load_data(faces).records
    few = [face for face in records if face.label == 0][:3]
    picked = pick_faces([*few, *(face for face in records if face.label == 1)], 12)
    assert sum(face.label for face in picked) == 9
    assert [face.label for face in alternate_classes(picked)] == [0, 1] * 3 + [1] * 6


def test_unreadable_faces_are_skipped_and_named(faces, tmp_path):
    records = load_data(faces).records
    gone = replace(records[0], path=tmp_path / "gone.png")
    readable, unreadable = take_readable([gone, *records[1:]], 3)
    assert readable == records[1:4]
    assert [(file.path, file.reason, file.broken) for file in unreadable] == [(gone.path, "not found", True)]
