"""What a board tells programs: verdicts from its results, its service, drift and signature."""

import calendar
import json
import os
import time
from pathlib import Path

import pytest

from board_setup import cli
from board_setup.board import disk, service, versions
from board_setup.board.doctor import health
from board_setup.board.doctor.health import count_verdicts
from board_setup.board.layout import SERVICE, Layout


def frame(time: str, *faces: tuple[str, int | None], source: str = "camera") -> str:
    found = [{"verdict": verdict, "track": track} for verdict, track in faces]
    return json.dumps({"source": source, "time": time, "faces": found}) + "\n"


def test_tracked_face_counts_once_an_hour_with_its_last_verdict(tmp_path) -> None:
    lines = [
        frame("2026-11-28T09:59:59.000Z", ("fake", 1)),
        frame("2026-11-28T10:00:01.000Z", ("uncertain", 1), ("real", 2)),
        frame("2026-11-28T10:00:02.000Z", ("fake", 1)),
        frame("2026-11-28T10:00:02.000Z", ("fake", 1), source="other"),
        frame("2026-11-28T11:00:00.000Z", ("real", 1)),
        frame("2026-11-28T11:00:00.000Z", ("uncertain", None), ("uncertain", None)),
    ]
    path = tmp_path / "results.jsonl"
    path.write_text("".join(lines))
    assert count_verdicts(str(path), "2026-11-28T10:00:00Z") == {"real": 2, "fake": 2, "uncertain": 2}


def test_faces_of_another_version_do_not_count(tmp_path) -> None:
    """Between the check of a version and the restart of the service, the old one still judges."""
    path = tmp_path / "results.jsonl"
    models = ("1.4.0", "1.4", "1.5.0", "1.4.0-aa")
    path.write_text(
        "".join(json.dumps({**json.loads(frame("2026", ("real", None))), "model": m}) + "\n" for m in models)
    )
    assert count_verdicts(str(path), "", "1.4.0-aa")["real"] == 2
    assert count_verdicts(str(path), "")["real"] == 4


def test_rotated_files_count_too(tmp_path) -> None:
    for name in ("results.jsonl", "results.1.jsonl", "results.2.jsonl"):
        (tmp_path / name).write_text(frame("2026", ("real", None)))
    assert count_verdicts(str(tmp_path / "results.jsonl"), "")["real"] == 3
    (tmp_path / "results.1.jsonl").unlink()
    assert count_verdicts(str(tmp_path / "results.jsonl"), "")["real"] == 1


@pytest.mark.parametrize(
    "line", ["", "{", "[" * 100_000, "7", '{"time": 3}', '{"source": "a", "time": "3", "faces": [1]}']
)
def test_unreadable_lines_are_left_out(tmp_path, line) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text(f"{line}\n" + frame("2026", ("fake", 4)) + '{"source": "cam')
    assert count_verdicts(str(path), "") == {"real": 0, "fake": 1, "uncertain": 0}


@pytest.mark.parametrize(("when", "counted"), [("2027-11-28T10:00:00Z", 1), ("2026-11-28T10:00:00Z", 0)])
def test_version_installed_with_a_clock_that_was_ahead_counts_its_faces(tmp_path, monkeypatch, when, counted) -> None:
    layout = Layout(str(tmp_path))
    disk.link(layout.versions + "/2-aa", layout.current)
    Path(layout.versions, "2-aa").mkdir(parents=True)
    Path(layout.state, "history.json").write_text(json.dumps([{"id": "2-aa", "when": when, "good": True}]))
    results = Path(layout.at("/var/log/deepfake-edge/results.jsonl"))
    results.parent.mkdir(parents=True)
    results.write_text(frame("2026-11-01T00:00:00.000Z", ("real", 1)))
    monkeypatch.setattr(health.time, "gmtime", lambda: time.struct_time((2026, 11, 29, 0, 0, 0, 6, 333, 0)))
    found = health.health(layout)
    assert (found["time"], found["verdicts"]["real"]) == ("2026-11-29T00:00:00Z", counted)


def test_status_is_json_for_programs(tmp_path, capsys) -> None:
    layout = Layout(str(tmp_path))
    folder = Path(layout.versions, "2-aa")
    folder.mkdir(parents=True)
    disk.link(str(folder), layout.current)
    entry = {"id": "2-aa", "when": "2026-11-28T10:00:00Z", "good": True}
    Path(layout.state, "history.json").write_text(json.dumps([entry]))
    Path(layout.trusted).mkdir(parents=True)
    signed = {"counter": 3, "kit": "", "version": "2-aa", "signer": "fleet"}
    Path(layout.trusted, "last.json").write_text(json.dumps(signed))
    monitor = Path(layout.at("/var/lib/deepfake-edge-state/monitor/status.json"))
    monitor.parent.mkdir(parents=True)
    monitor.write_text(json.dumps({"state": "watch", "since": None, "reason": "darker", "checks": []}))
    asked = f"systemctl show {SERVICE} --property=ActiveState --property=NRestarts --property=InvocationID"
    answer = {asked: [0, "ActiveState=active\nNRestarts=2\nInvocationID=a"]}
    (tmp_path / "commands.json").write_text(json.dumps(answer))
    with pytest.raises(SystemExit) as ended:
        cli.main(["status", "--json", "--root", layout.root])
    assert ended.value.code == 0
    found = json.loads(capsys.readouterr().out)
    assert abs(calendar.timegm(time.strptime(found.pop("time"), "%Y-%m-%dT%H:%M:%SZ")) - time.time()) < 60
    assert found == {
        "version": "2-aa",
        "since": "2026-11-28T10:00:00Z",
        "good": True,
        "signed_by": "fleet",
        "service": "active",
        "restarts": 2,
        "camera": False,
        "drift": {"state": "watch", "since": None, "reason": "darker"},
        "verdicts": {"real": 0, "fake": 0, "uncertain": 0},
    }


@pytest.fixture
def upgraded(tmp_path) -> Layout:
    """A board with version 2, and version 1 to go back to."""
    layout = Layout(str(tmp_path))
    for version in ("1-aa", "2-aa"):
        Path(layout.versions, version).mkdir(parents=True)
    Path(layout.state, "way.json").write_text('["1-aa", "2-aa"]')
    disk.link(f"{layout.versions}/2-aa", layout.current)
    return layout


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("stage", ["before the switch", "after the switch", "restart"])
def test_interrupted_rollback_says_whether_it_returned(upgraded, monkeypatch, capsys, stage) -> None:
    """The same command would go back once more."""
    if stage == "restart":
        monkeypatch.setattr(Layout, "is_live", True)
        monkeypatch.setattr(service, "UNIT_PATH", upgraded.current)
        monkeypatch.setattr(service, "restart", interrupt)
    elif stage == "after the switch":
        monkeypatch.setattr(os, "sync", interrupt)
    else:
        monkeypatch.setattr(disk, "link", lambda *_: interrupt())
    with pytest.raises(SystemExit) as ended:
        cli.main(["rollback", "--root", upgraded.root])
    told, returned = capsys.readouterr().err, stage != "before the switch"
    assert (ended.value.code, told.count("\n")) == (130, 1)
    assert versions.current_version(upgraded) == ("1-aa" if returned else "2-aa")
    assert ("returned to 1-aa" in told, "setup-board status" in told) == (returned, returned)
    assert ("run the same command again" in told) is not returned


def test_rollback_only_from_a_version(upgraded, capsys) -> None:
    layout = upgraded
    for asked, told in (
        ("3-aa", "2-aa is in use; nothing to do\n"),
        ("2-aa", "returned to 1-aa\n"),
        ("2-aa", "1-aa is in"),
    ):
        with pytest.raises(SystemExit) as ended:
            cli.main(["rollback", "--from", asked, "--root", layout.root])
        assert ended.value.code == 0
        assert capsys.readouterr().out.startswith(told)
