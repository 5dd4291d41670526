"""The review page, as a browser without script sees it."""

import html
import io
import json
import re
import sqlite3
from datetime import datetime, timedelta, timezone

import pytest
from helpers.reviews import keep
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from edge_runtime.cli import main as edge_detect_main
from edge_runtime.errors import UsageError
from edge_runtime.review.database import ReviewDatabase, ReviewLabel
from edge_runtime.review.desk import ReviewDesk, ReviewPlaces
from edge_runtime.review.sealing import write_key_pair
from edge_runtime.web.cli import main as edge_serve_main
from edge_runtime.web.settings import Settings
from edge_runtime.web.texts import TEXTS

ENGLISH = TEXTS["en"]
HOSTILE = '"><script>alert(1)</script>'


@pytest.fixture
def places(tmp_path) -> ReviewPlaces:
    """Three encrypted faces of a board, and their key. They come from a folder whose name tells what they are."""
    public = write_key_pair(tmp_path / "key")
    keep(tmp_path / "kept/board1", [public], range(3), source="downloads/fake/7.png")
    return ReviewPlaces(tmp_path / "kept", tmp_path / "key")


@pytest.fixture
def client(opened, whole_detector, places):
    with opened(whole_detector, Settings(review=places), follow_redirects=True) as client:
        yield client


def sign(client, name: str) -> str:
    return client.post("/review/name", data={"name": name}).text


def shown(text: str) -> int | None:
    """Return the number of the face on the page."""
    found = re.search(r'name="face" value="(\d+)"', text)
    return found and int(found[1])


def say(client, text: str, label: str) -> str:
    return client.post("/review", data={"face": shown(text), "label": label}).text


def test_faces_are_reviewed_one_after_the_other(client, places):
    assert ENGLISH["review_lead"] in client.get("/review").text
    text = sign(client, "Ann")
    assert "data:image/png;base64,iVBOR" in text
    assert "new generators" in text
    assert "0 of 3" in text
    seen = []
    for label in ("real", "fake", "unusable"):
        seen.append(shown(text))
        text = say(client, text, label)
    assert len(set(seen)) == 3
    assert ENGLISH["review_done"] in text
    before = datetime.now(timezone.utc)
    reviews = ReviewDatabase(places.folder / "reviews.sqlite").reviews()
    assert [(one.face_id, one.reviewer, one.label.value) for one in reviews] == [
        (face, "Ann", label) for face, label in zip(seen, ("real", "fake", "unusable"), strict=True)
    ]
    assert all(abs(before - one.time) < timedelta(minutes=1) for one in reviews)


def test_an_answer_can_be_undone(client, places):
    text = sign(client, "Ann")
    first = shown(text)
    assert "disabled" in text
    assert shown(say(client, text, "fake")) != first
    assert shown(client.post("/review/undo").text) == first
    database = ReviewDatabase(places.folder / "reviews.sqlite")
    assert database.reviews() == []
    assert [one.undone for one in database.reviews(undone=True)] == [True]


def test_nothing_shown_before_the_answer_gives_it_away(client):
    text = sign(client, "Ann")
    words = (ENGLISH["uncertain"], "0.5", ENGLISH["reason_unlike"], "downloads")
    body = re.sub(r"base64,[^\"]*|<rect[^>]*>", "", text.split("<main", 1)[1].split("<footer", 1)[0])
    assert not [word for word in words if word in body]


def test_two_reviewers_see_their_agreement(client):
    for name, labels in (("Ann", ("real", "fake", "fake")), ("Ben", ("real", "fake", "real"))):
        text = sign(client, name)
        for label in labels:
            text = say(client, text, label)
    assert "Ann and Ben: 67 % the same of 3 faces that both judged, Cohen&#39;s kappa 0.40" in text


def test_reviewers_outlive_a_restart(opened, whole_detector, places):
    for expected in (3, 2):
        with opened(whole_detector, Settings(review=places), follow_redirects=True) as client:
            text = sign(client, "Ann")
            assert f"{3 - expected} of 3" in text
            say(client, text, "skip")


def test_expired_faces_are_deleted_and_their_reviews_stay(tmp_path):
    keep(tmp_path / "old", [], range(1), age_days=14.1)
    keep(tmp_path / "new", [], range(1, 2), age_days=13.9)
    desk = ReviewDesk(ReviewPlaces(tmp_path))
    assert [path.parent.name for path in tmp_path.rglob("face-*")] == ["new"]
    assert len(desk.faces()) == 1
    assert len(desk.database.faces()) == 2


def test_faces_copied_later_appear(client, places, tmp_path):
    sign(client, "Ann")
    desk = ReviewDesk(places)
    keep(places.folder / "board2", [], range(7, 9))
    desk.refresh()
    assert len(desk.faces()) == 5


def test_files_that_can_not_be_opened_are_counted(opened, whole_detector, places, tmp_path):
    other = write_key_pair(tmp_path / "other")
    keep(places.folder / "board2", [other], range(5, 6))
    (face, *_) = (places.folder / "board1").glob("face-*")
    (places.folder / "board1" / face.name.replace("uncertain", "sample")).write_bytes(face.read_bytes()[:-50])
    with opened(whole_detector, Settings(review=places), follow_redirects=True) as client:
        text = sign(client, "Ann")
    assert "0 of 3" in text
    assert ENGLISH["review_unreadable"].format(count=2) in html.unescape(text)


@pytest.mark.parametrize("share", [0.1, 0.9])
def test_a_face_that_is_still_being_copied_is_taken_when_it_is_whole(places, share):
    (face, *_) = (places.folder / "board1").glob("face-*")
    copy, data = places.folder / face.name, face.read_bytes()
    copy.write_bytes(data[: int(share * len(data))])
    face.unlink()
    desk = ReviewDesk(places)
    assert (len(desk.faces()), desk.unreadable) == (2, 1)
    copy.write_bytes(data)
    desk.refresh()
    assert (len(desk.faces()), desk.unreadable) == (3, 0)
    assert len(ReviewDesk(places).faces()) == 3


def test_a_forged_record_reaches_no_page(tmp_path, places, opened, whole_detector):
    keep(tmp_path / "kept/forged", [], range(20, 21), source=HOSTILE)
    with opened(whole_detector, Settings(review=places), follow_redirects=True) as client:
        text = sign(client, HOSTILE)
        for _ in range(3):
            text = say(client, text, "skip")
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text
    (path,) = (tmp_path / "kept/forged").glob("face-*")
    with Image.open(path) as picture:
        record = json.loads(picture.info["deepfake-edge"])
        changes = ({"box": [1, 2]}, {"box": ["x"] * 4}, {"width": "1"}, {"time": 5}, {"time": "now"})
        # None of these fits into UTC or into the database.
        changes += ({"time": "0001-01-01T00:00:00+14:00"}, {"delete_after": "9999-12-31T23:59:59-14:00"})
        changes += ({"score": 10**30}, {"score": float("nan")}, {"score": -0.1})
        for forged in (*(json.dumps({**record, **change}) for change in changes), "[" * 100_000):
            info = PngInfo()
            info.add_itxt("deepfake-edge", forged)
            picture.save(path, "PNG", pnginfo=info)
            desk = ReviewDesk(places)
            assert (len(desk.faces()), desk.unreadable) == (3, 1), forged[:900]


def test_a_face_that_expires_meanwhile_is_passed_over(client, places):
    first, *others = sorted((places.folder / "board1").glob("face-*"))
    first.unlink()
    text = sign(client, "Ann")
    assert shown(text) == 2
    for path in others:
        path.unlink()
    assert ENGLISH["review_done"] in client.get("/review").text


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"face": "1", "label": "perhaps"}, id="unknown label"),
        pytest.param({"face": "99", "label": "real"}, id="unknown face"),
        pytest.param({"face": "9" * 40, "label": "real"}, id="huge number"),
        pytest.param({"label": "real"}, id="no face"),
    ],
)
def test_odd_answers_are_refused(client, places, fields):
    assert client.post("/review", data=fields).status_code == 422
    sign(client, "Ann")
    assert client.post("/review", data=fields).status_code == 422
    assert client.post("/review/name", data={"name": "x" * 61}).status_code == 422
    assert ReviewDatabase(places.folder / "reviews.sqlite").reviews() == []


def test_a_damaged_database_is_a_problem_of_the_service(client, places, caplog):
    text = sign(client, "Ann")
    path = places.folder / "reviews.sqlite"
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + bytes(len(whole) - 4096))
    answers = [client.get("/review"), client.post("/review/undo")]
    answers.append(client.post("/review", data={"face": shown(text), "label": "real"}))
    assert [(answer.status_code, answer.json()["type"]) for answer in answers] == [(503, "/problems/no-reviews")] * 3
    assert str(path) in caplog.text
    path.write_bytes(whole)
    assert shown(client.get("/review").text) == shown(text)


def test_without_a_folder_there_is_no_review(plain):
    answer = plain.get("/review")
    assert answer.status_code == 404
    assert ENGLISH["review_none"] in answer.text
    assert 'href="/review"' not in plain.get("/").text


def test_the_token_protects_faces(opened, whole_detector, places):
    with opened(whole_detector, Settings(review=places, token="0123456789abcdef"), follow_redirects=False) as client:
        assert client.get("/review").status_code == 401
        assert client.post("/review", data={"face": 1, "label": "real"}).status_code == 401


def test_the_database_is_private_and_plain_sqlite(client, places):
    say(client, sign(client, "Ann"), "fake")
    path = places.folder / "reviews.sqlite"
    assert path.stat().st_mode & 0o777 == 0o600
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT reviewer, label FROM reviews").fetchall() == [("Ann", ReviewLabel.FAKE.value)]


def test_a_missing_folder_or_key_is_one_line(tmp_path):
    with pytest.raises(UsageError, match="not found; give the folder of kept faces"):
        ReviewDesk(ReviewPlaces(tmp_path / "none"))
    with pytest.raises(UsageError, match="can't be read"):
        ReviewDesk(ReviewPlaces(tmp_path, tmp_path / "none"))


def test_a_board_keeps_what_only_the_workstation_opens(bundle_path, red, tmp_path, monkeypatch, capsys):
    """From the key pair over a board's kept face to the desk that opens it, by the commands."""

    def run(main, *arguments):
        monkeypatch.setattr("sys.argv", ["command", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert not ended.value.code, said.err
        return said.out.strip()

    key, folder = tmp_path / "review.key", tmp_path / "kept"
    public = run(edge_serve_main, "keygen", key)
    red.save(tmp_path / "face.png")
    monkeypatch.setenv("DEEPFAKE_EDGE_MODEL", str(bundle_path))
    options = ("--review-purpose", "test", "--review-key", public, "--review-sample", "1")
    run(edge_detect_main, tmp_path / "face.png", "--review", folder, *options)
    desk = ReviewDesk(ReviewPlaces(folder, key))
    png, record = desk.open(desk.faces()[0])
    assert (record["verdict"], record["kept_for"], record["purpose"]) == ("fake", "sample", "test")
    with Image.open(io.BytesIO(png)) as face:
        assert face.tobytes() == red.tobytes()
