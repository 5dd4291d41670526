import sqlite3
import threading
from datetime import datetime, timezone

import pytest

from edge_runtime.errors import DataError
from edge_runtime.review.database import ReviewDatabase, ReviewFace, ReviewLabel

WHEN = datetime(2026, 5, 4, 12, 30, tzinfo=timezone.utc)


def kept(folder, name="a", **changes):
    given = {"path": folder / f"{name}.jpg", "sha256": name * 64, "source": "door", "time": WHEN}
    return ReviewFace(**{**given, "verdict": "uncertain", "score": 0.5, "reason": "random", **changes})


@pytest.fixture
def database(tmp_path):
    return ReviewDatabase(tmp_path / "reviews.sqlite", create=True)


def test_faces_come_back_as_added(database, tmp_path):
    number = database.add_face(kept(tmp_path, score=None))
    (face,) = database.faces()
    assert (face.id, face.path, face.time, face.score) == (number, tmp_path / "a.jpg", WHEN, None)
    assert database.face(number) == face
    assert database.face(99) is None


def test_same_picture_is_kept_once(database, tmp_path):
    assert database.add_face(kept(tmp_path)) == database.add_face(kept(tmp_path, reason="shadow"))
    assert len(database.faces()) == 1


def test_folder_can_be_moved(database, tmp_path):
    database.add_face(kept(tmp_path))
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    database.path.rename(moved / "reviews.sqlite")
    assert ReviewDatabase(moved / "reviews.sqlite").faces()[0].path == moved / "a.jpg"


def test_each_reviewer_gets_each_face(database, tmp_path):
    first, second = (database.add_face(kept(tmp_path, name)) for name in "ab")
    database.add_review(first, "ada", ReviewLabel.REAL)
    assert database.next_face("ada").id == second
    assert database.next_face("bob").id == first
    database.add_review(second, "ada", ReviewLabel.SKIP)
    assert database.next_face("ada") is None


def test_undo_takes_back_the_last(database, tmp_path):
    first, second = (database.add_face(kept(tmp_path, name)) for name in "ab")
    for face in (first, second):
        database.add_review(face, "ada", ReviewLabel.FAKE, WHEN)
    taken = database.undo("ada")
    assert (taken.face_id, taken.undone, taken.time) == (second, True, WHEN)
    assert [review.face_id for review in database.reviews()] == [first]
    assert len(database.reviews(undone=True)) == 2
    assert database.undo("bob") is None


def test_second_review_replaces_the_first(database, tmp_path):
    face = database.add_face(kept(tmp_path))
    database.add_review(face, "ada", ReviewLabel.FAKE)
    database.add_review(face, "ada", ReviewLabel.REAL)
    assert database.labels() == {face: ReviewLabel.REAL}


def test_labels_need_agreement(database, tmp_path):
    faces = [database.add_face(kept(tmp_path, name)) for name in "abc"]
    for reviewer, labels in (("ada", ("fake", "real", "skip")), ("bob", ("fake", "unusable", "skip"))):
        for face, label in zip(faces, labels, strict=True):
            database.add_review(face, reviewer, ReviewLabel(label))
    assert database.labels() == {faces[0]: ReviewLabel.FAKE, faces[1]: None}


def test_unknown_face_is_refused(database):
    with pytest.raises(DataError, match="face 7"):
        database.add_review(7, "ada", ReviewLabel.REAL)


def test_threads_write_at_once(database, tmp_path):
    face = database.add_face(kept(tmp_path))
    names = [f"reviewer {number}" for number in range(8)]
    threads = [threading.Thread(target=database.add_review, args=(face, name, ReviewLabel.REAL)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(review.reviewer for review in database.reviews()) == names


def test_other_files_are_refused(tmp_path):
    with pytest.raises(DataError, match="no review database"):
        ReviewDatabase(tmp_path / "none.sqlite")
    (tmp_path / "text").write_text("not a database, only some text that is long enough")
    with pytest.raises(DataError):
        ReviewDatabase(tmp_path / "text")
    with sqlite3.connect(tmp_path / "other") as other:
        other.execute("CREATE TABLE faces (id)")
    for create in (False, True):
        with pytest.raises(DataError, match="is not a review database"):
            ReviewDatabase(tmp_path / "other", create=create)
