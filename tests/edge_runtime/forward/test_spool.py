"""Reading the results' file through rotation, cuts and damage."""

import json
import os
import threading
from pathlib import Path

import pytest

from edge_runtime.errors import SourceError, UsageError
from edge_runtime.forward.spool import Position, Spool, read_position, write_position
from edge_runtime.sinks.lines import LineFile

BEGINS = '{"source":'


def line(number: int) -> str:
    return json.dumps({"source": "camera", "frame": number, "time": f"2026-11-22T10:00:{number:09.3f}Z", "faces": []})


def write(path: Path, numbers, rotate_at: int | None = None) -> None:
    with LineFile(path, begins=BEGINS, rotate_at=rotate_at) as file:
        for number in numbers:
            file.append(line(number))


def frames(spool: Spool, most: int = 10_000) -> list[int]:
    return [found.values["frame"] for found in spool.lines(most)]


def test_every_line_comes_once_through_rotation_and_restarts(tmp_path):
    path, position, seen = tmp_path / "results.jsonl", None, []
    ids = set()
    for start in range(0, 400, 7):
        write(path, range(start, start + 7), rotate_at=1000)
        spool = Spool(path, position)
        for found in spool.lines(5 if start % 2 else 100):
            seen.append(found.values["frame"])
            ids.add(found.id)
            position = found.end
        spool.close()
    assert len(ids) == len(seen)
    seen += frames(Spool(path, position))
    assert seen == list(range(406))
    assert (tmp_path / "results.5.jsonl").exists()


def test_a_reader_keeps_up_while_lines_are_written(tmp_path):
    path, done = tmp_path / "results.jsonl", threading.Event()

    def work() -> None:
        with LineFile(path, begins=BEGINS, rotate_at=20_000) as file:
            for number in range(3000):
                file.append(line(number))
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    spool, seen = Spool(path, None), []
    while not done.is_set():
        seen += frames(spool)
    thread.join()
    seen += frames(spool)
    assert seen == sorted(set(seen))
    # A reader that is stopped for five rotations misses what they replaced.
    assert seen[-1] == 2999
    assert len(seen) > 1000


def test_half_and_damaged_lines(tmp_path, caplog):
    path = tmp_path / "results.jsonl"
    write(path, [1])
    spool = Spool(path, None)
    with path.open("a") as file:
        file.write(line(2)[:20])
    assert frames(spool) == [1]
    assert frames(spool) == []
    write(path, [3])  # The writer ends the half line first.
    with path.open("ab") as file:
        file.write(b"x" * (1 << 21) + b"\n" + line(4).encode() + b"\n")
    assert frames(spool) == [3, 4]
    assert "damaged lines are left out" in caplog.text


def test_later_damage_is_told_again(tmp_path, caplog):
    path = tmp_path / "results.jsonl"
    path.write_text("damaged\ndamaged too\n" + line(1) + "\n")
    spool = Spool(path, None)
    assert frames(spool) == [1]
    assert caplog.text.count("damaged lines are left out") == 1
    with path.open("a") as file:
        file.write(line(2) + "\ndamaged\n")
    assert frames(spool) == [2]
    assert caplog.text.count("damaged lines are left out") == 2


def test_a_folder_that_may_not_be_searched_is_one_line(tmp_path):
    private = tmp_path / "private"
    private.mkdir(mode=0o600)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(SourceError, match=r"can't be read \(Permission denied\); check its folder and user"):
            Spool(private / "results.jsonl", None)
    finally:
        os.seteuid(user)


def test_a_missing_file_is_looked_for_once_a_poll(tmp_path, monkeypatch):
    looked, files = [], Spool._files
    monkeypatch.setattr(Spool, "_files", lambda spool: looked.append(spool) or files(spool))
    assert frames(Spool(tmp_path / "results.jsonl", None)) == []
    assert len(looked) == 1


def test_a_file_that_begins_with_damage_is_read(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_bytes(b"x" * (1 << 21) + b"\n" + line(1).encode() + b"\n")
    *_, last = Spool(path, None).lines(9)
    assert last.values["frame"] == 1
    with path.open("a") as file:
        file.write(line(2) + "\n")
    assert frames(Spool(path, last.end)) == [2]


def test_a_missing_file_is_told_once_and_a_folder_refused(tmp_path, caplog):
    spool = Spool(tmp_path / "results.jsonl", None)
    assert frames(spool) == frames(spool) == []
    assert caplog.text.count("waiting for edge-detect --jsonl") == 1
    write(tmp_path / "results.jsonl", [1])
    assert frames(spool) == [1]
    with pytest.raises(UsageError, match="is a folder"):
        Spool(tmp_path, None)


def test_the_id_depends_on_place_and_text_alone(tmp_path):
    path = tmp_path / "results.jsonl"
    write(path, [1, 1, 2])
    first, again = ([found.id for found in Spool(path, None).lines(9)] for _ in range(2))
    assert first == again
    assert len(set(first)) == 3


def test_a_reused_inode_or_a_lost_file_begins_anew(tmp_path, caplog):
    path = tmp_path / "results.jsonl"
    write(path, [1, 2, 3])
    *_, last = Spool(path, None).lines(9)
    path.write_text(line(7) + "\n")  # The same inode.
    assert frames(Spool(path, last.end)) == [7]
    assert "may be lost" in caplog.text
    assert frames(Spool(tmp_path / "none.jsonl", None)) == []


def test_the_place_is_kept(tmp_path):
    place = tmp_path / "state" / "forward.json"
    assert read_position(place) is None
    write_position(place, Position(5, "ab", 77))
    assert read_position(place) == Position(5, "ab", 77)
    for damaged in ("[]", '{"inode": 5, "first": "ab", "offset": -7}'):
        place.write_text(damaged)
        with pytest.raises(UsageError, match="remove it to send everything again"):
            read_position(place)
