"""What fleet deploy decides without asking a board: waves, limits, the inventory, the record, and the screen."""

import json
import shutil
from collections.abc import Callable
from typing import NamedTuple

import pytest
from helpers.kits import make_kit

from board_setup import cli
from board_setup.board.disk import DamagedError
from board_setup.board.kit import TOOL
from board_setup.workstation.deploy import Board, DeployError
from board_setup.workstation.fleet.inventory import FleetError, alone, read_inventory
from board_setup.workstation.fleet.limits import WaveLimits, disagreement, exceeded, missing_faces
from board_setup.workstation.fleet.progress import FAILED, INSTALLED, WAITING, Progress, parse_waves
from board_setup.workstation.fleet.rollout import Pace, Rollout
from board_setup.workstation.fleet.screen import WIDTH, draw


def board(version: str = "2-aa", fake: int = 30, real: int = 270, **changes: object) -> dict:
    verdicts = {"real": real, "fake": fake, "uncertain": 0}
    given = {"since": f"2026-{version[0]}", "restarts": 0, "camera": True, "service": "active", "signed_by": "key"}
    return {"version": version, **given, "verdicts": verdicts, "drift": None, **changes}


@pytest.mark.parametrize(
    ("text", "boards", "counts"),
    [
        ("1,5%,25%,100%", 200, [1, 10, 50, 200]),
        ("1,5%,25%,100%", 19, [1, 2, 4, 19]),
        ("1,5%,25%,100%", 1, [1]),
        ("1,2,3", 10, [1, 2, 3]),
        ("5%", 200, [10]),
        ("12.5%,100%", 8, [1, 8]),
    ],
)
def test_waves_count_boards(text, boards, counts) -> None:
    assert parse_waves(text, boards) == counts


@pytest.mark.parametrize("text", ["", "0", "x", "5,", "-1", "101%", "1.5", "1;2"])
def test_malformed_waves_are_one_line(text) -> None:
    if text == "0":
        assert parse_waves(text, 5) == [1]
        return
    with pytest.raises(FleetError, match="--waves"):
        parse_waves(text, 5)


def test_disagreement_is_the_total_variation_distance() -> None:
    then = {"real": 80, "fake": 10, "uncertain": 10}
    assert disagreement(then, {"real": 8, "fake": 1, "uncertain": 1}) == 0
    assert disagreement(then, {"real": 0, "fake": 7, "uncertain": 0}) == pytest.approx(0.9)
    assert disagreement(then, {"real": 60, "fake": 30, "uncertain": 10}) == pytest.approx(0.2)
    assert disagreement(then, {"real": 0, "fake": 0, "uncertain": 0}) == 0


DRIFT = {"state": "drift", "since": "today", "reason": "blurred"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, ""),
        ({"fake": 60, "real": 240}, ""),
        ({"fake": 61, "real": 239}, "at least 10% of faces are judged otherwise than before (limit 10%)"),
        ({"fake": 150, "real": 49}, ""),
        ({"restarts": 3}, ""),
        ({"restarts": 4}, "4 restarts on a (limit 3)"),
        ({"restarts": 400, "camera": False, "service": "activating"}, ""),
        ({"service": "failed"}, "does not run on a"),
        ({"version": "1-aa"}, "does not run on a"),
        ({"drift": {**DRIFT, "state": "watch"}}, ""),
        ({"drift": DRIFT}, "drift on a (limit 0): blurred"),
    ],
)
def test_limits(changes, reason) -> None:
    found = exceeded(WaveLimits(), "2-aa", {"a": board("1-aa")}, {"a": board(**changes)})
    assert found.startswith(reason)
    assert bool(found) is bool(reason)


def test_board_that_drifted_before_is_no_reason() -> None:
    assert exceeded(WaveLimits(), "2-aa", {"a": board("1-aa", drift=DRIFT)}, {"a": board(drift=DRIFT)}) == ""


def test_wave_waits_for_faces_where_there_were_some() -> None:
    limits = WaveLimits(faces=200)
    assert missing_faces(limits, {"a": board()}, {"a": board(fake=10, real=40)}) == 150
    assert missing_faces(limits, {"a": board(fake=0, real=10)}, {"a": board(fake=0, real=0)}) == 0
    pair = {"a": board(fake=0, real=150), "b": board(fake=0, real=150)}
    assert missing_faces(limits, pair, pair) == 0


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "names no board"),
        ("[boards]\n", "names no board"),
        ("[boards]\na = 1\n", 'a: give "user@board"'),
        ("[boards]\na = {ssh = 'ssh'}\n", 'a: give "user@board"'),
        ("[boards]\na = {host = 'b', port = 2}\n", 'a: give "user@board"'),
        ("[boards]\na = {host = 'b', ssh = 2}\n", "a: host and ssh are texts"),
        ("[boards]\na = '-oProxyCommand=x'\n", "not a host"),
        ("[boards]\na = 'b'\nc = 'b'\n", "c is the same board as a"),
        ("[boards]\na = 'root@b'\nc = 'edge@B'\n", "c is the same board as a"),
        ("[boards]\na = 'b'\na = 'c'\n", "can't be read"),
        ("shh = 'ssh -i fleet'\n[boards]\na = 'b'\n", "hosts.toml: shh: unknown"),
        ("ssh = 'ssh \"x'\n[boards]\na = 'b'\n", "hosts.toml: a: --ssh 'ssh"),
        ("[boards\n", "can't be read"),
    ],
)
def test_malformed_inventory_is_one_line(tmp_path, text, told) -> None:
    (tmp_path / "hosts.toml").write_text(text)
    with pytest.raises((FleetError, DeployError), match=told) as caught:
        read_inventory(str(tmp_path / "hosts.toml"))
    assert "\n" not in str(caught.value)


def test_inventory_keeps_its_order(tmp_path) -> None:
    (tmp_path / "hosts.toml").write_text(
        'ssh = "ssh -i k"\n[boards]\nz = "edge@z"\na = {host = "a", ssh = "ssh -p 2"}\n'
    )
    boards = read_inventory(str(tmp_path / "hosts.toml"))
    assert [(name, found.host, found.ssh) for name, found in boards.items()] == [
        ("z", "edge@z", "ssh -i k"),
        ("a", "a", "ssh -p 2"),
    ]


def test_two_rollouts_at_once_are_refused(tmp_path) -> None:
    path = tmp_path / "hosts.toml"
    path.write_text("")
    with alone(str(path)):
        # As an editor saves it.
        (tmp_path / "new").write_text("changed")
        (tmp_path / "new").replace(path)
        with pytest.raises(FleetError, match="another fleet deploy"), alone(str(path)):
            pass
    (tmp_path / "link.toml").symlink_to(path)
    with alone(str(path)), pytest.raises(FleetError, match="another fleet deploy"), alone(str(tmp_path / "link.toml")):
        pass


def test_record_of_another_rollout_is_refused(tmp_path) -> None:
    path = str(tmp_path / "state.json")
    progress = Progress(path, "2-aa", "1,2", ["a", "b"])
    progress.note("a", INSTALLED)
    assert Progress(path, "2-aa", "1,2", ["a", "b"]).boards["a"]["state"] == INSTALLED
    with pytest.raises(FleetError, match="is the record of version 2-aa"):
        Progress(path, "3-aa", "1,2", ["a", "b"])
    with pytest.raises(FleetError, match="is the record of waves"):
        Progress(path, "2-aa", "2", ["a", "b"])


def test_record_of_an_earlier_version_is_named_as_such(tmp_path) -> None:
    old = {"version": "2-aa", "waves": [1, 2], "wave": 0, "since": 0.0, "halted": "", "boards": {}}
    (tmp_path / "state.json").write_text(json.dumps(old))
    with pytest.raises(FleetError, match="written by an earlier version"):
        Progress(str(tmp_path / "state.json"), "2-aa", "1,2", ["a", "b"])


@pytest.mark.parametrize("text", ["{", '{"version": "2-aa", "wa', "[]", '{"version": "2-aa", "waves": "1"}'])
def test_damaged_record_is_not_to_be_deleted(tmp_path, text) -> None:
    """With it would go that the rollout was halted, and what the boards ran before."""
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(DamagedError, match=rf"^{tmp_path}/state.json: damaged; ") as caught:
        Progress(str(tmp_path / "state.json"), "2-aa", "1", ["a"])
    assert "delete" not in str(caught.value)
    assert "setup-board fleet status" in str(caught.value)


class Recorded(NamedTuple):
    """A rollout that goes on from its record, and what it says."""

    rollout: Rollout
    said: list[str]


@pytest.fixture
def recorded(tmp_path) -> Callable[..., Recorded]:
    """Make a rollout whose boards were tried; only door-000 answers, with a healthy new version."""

    def make(states: dict[str, str], *, waves: str = "100%", wave: int = 0, limits: WaveLimits) -> Recorded:
        health = json.dumps({"version": "2-aa", "restarts": 0, "camera": False, "verdicts": {}})
        (tmp_path / "ssh").write_text(f"#!/bin/sh\ncase \"$*\" in *door-000*) echo '{health}' ;; *) exit 255 ;; esac\n")
        (tmp_path / "ssh").chmod(0o755)
        (tmp_path / TOOL).touch()
        progress = Progress(str(tmp_path / "state.json"), "2-aa", waves, list(states))
        for name, state in states.items():
            progress.boards[name].update(wave=0, before={"version": "1-aa", "restarts": 0, "verdicts": {}})
            progress.note(name, state, "disk full" if state == FAILED else "")
        progress.wave, progress.since = wave, 0.0 if wave else 1.0
        progress.save()
        said: list[str] = []

        def say(line: str) -> None:
            said.append(line)
            if line.startswith("watching"):
                raise KeyboardInterrupt

        rollout = Rollout(
            {name: Board(name, str(tmp_path / "ssh")) for name in states},
            str(make_kit(tmp_path / "kit.tar", "2")),
            waves=waves,
            limits=limits,
            pace=Pace(watch_s=0),
            state_path=progress.path,
            say=say,
        )
        return Recorded(rollout, said)

    return make


@pytest.mark.skipif(shutil.which("rsync") is None, reason="needs rsync")
def test_wave_whose_boards_all_failed_halts(recorded) -> None:
    """The limit allows it, but failed boards are not tried again, so waiting would never end."""
    made = recorded({"door-000": FAILED}, limits=WaveLimits(failed=1))
    assert made.rollout.run() is False
    assert made.rollout.progress.halted == "installing failed on 1 of the wave's boards: door-000: disk full"


@pytest.mark.skipif(shutil.which("rsync") is None, reason="needs rsync")
def test_wave_that_the_inventory_left_empty_passes(recorded) -> None:
    """Its boards were of an earlier wave, since boards were removed from the inventory in between."""
    made = recorded({"door-000": INSTALLED, "door-001": INSTALLED}, waves="50%,100%", wave=1, limits=WaveLimits())
    assert made.rollout.run() is True
    assert made.said[-1] == "2-aa is on 2 of 2 boards"


@pytest.mark.skipif(shutil.which("rsync") is None, reason="needs rsync")
@pytest.mark.parametrize(
    ("states", "limits", "told"),
    [
        ({"door-000": INSTALLED, "door-003": INSTALLED}, WaveLimits(), "waiting for door-003;"),
        (dict.fromkeys(("door-003", "door-007"), INSTALLED), WaveLimits(), "waiting for door-003, door-007;"),
        ({"door-003": INSTALLED}, WaveLimits(away=1), "waiting for door-003;"),
    ],
)
def test_watch_names_who_is_away_and_the_ways_out(recorded, states, limits, told) -> None:
    made = recorded(states, limits=limits)
    with pytest.raises(KeyboardInterrupt):
        made.rollout.run()
    assert told in made.said[-1]
    assert "from the inventory" in made.said[-1]
    assert ("--max-away" in made.said[-1]) is (limits.away < 1)


def test_record_follows_the_inventory(tmp_path) -> None:
    path = str(tmp_path / "state.json")
    progress = Progress(path, "2-aa", "1,100%", ["a", "b"])
    for name in ("a", "b"):
        progress.note(name, INSTALLED)
    progress.wave = 2
    progress.save()
    later = Progress(path, "2-aa", "1,100%", ["b", "c"])
    assert {name: found["state"] for name, found in later.boards.items()} == {"b": INSTALLED, "c": WAITING}
    later.begin_wave()
    assert (later.wave, later.of_wave()) == (1, ["c"])


def test_board_whose_clock_is_ahead_does_not_have_the_newest_version() -> None:
    ahead = board("1-aa", since="2027", clock_ahead_s=365 * 86400.0)
    answers = {"a": board("2-aa", since="2026-11"), "b": board("1-aa", since="2026-10"), "c": ahead}
    assert draw(answers).splitlines()[3].split()[1] == ".oc"


def test_board_whose_clock_was_ahead_does_not_have_the_newest_version() -> None:
    """Its clock is right now, but its version dates from next year."""
    now = "2026-11-28T19:00:00Z"
    was_ahead = board("1-aa", since="2027-11-01T00:00:00Z", time=now)
    answers = {"a": board("2-aa", since="2026-11-01T00:00:00Z", time=now), "b": was_ahead}
    assert draw(answers).splitlines()[3].split()[1] == ".o"


@pytest.mark.parametrize(
    "words",
    [
        *(["--poll-seconds", "nan"], ["--poll-seconds", "0"], ["--watch-minutes", "-1"], ["--max-disagreement", "1.5"]),
        *(["--max-failed", "-1"], ["--parallel", "0"], ["--max-away", "x"]),
    ],
)
def test_option_out_of_its_range_is_refused(words, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["fleet", "deploy", "--inventory", "hosts.toml", "--kit", "kit.tar", *words])
    assert (ended.value.code, "give a number from" in capsys.readouterr().err) == (2, True)


def test_two_hundred_boards_fit_one_screen() -> None:
    answers: dict = {f"building-{number:03}": board() for number in range(200)}
    for number in range(20):
        answers[f"building-{number:03}"] = DeployError(f"root@192.0.2.{number}: can't be reached; try: ssh " + "x" * 90)
    answers["building-100"] = board(drift={**DRIFT, "reason": "the camera is \x1b[2J out of focus " * 9})
    answers["building-101"] = board("1-aa")
    answers["building-102"] = board(restarts=2)
    answers["building-103"] = board(service="failed")
    answers["building-104"] = board(clock_ahead_s=-365 * 86400.0)
    for number in range(12):
        del answers[f"building-{number:03}"]
    answers.update({f"new-{number}": board() for number in range(12)})
    lines = draw(answers).splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= WIDTH
    assert lines[0] == "200 boards: 191 on 2-aa, 1 on 1-aa; 192 signed"
    assert "c building-104: its clock is 365.0 days behind; set it" in lines
    grid = "".join(line[24:].replace(" ", "") for line in lines[3:7])
    assert (len(grid), grid[:8], grid[88:93]) == (200, "?" * 8, "dorxc")
    assert lines[8].startswith("x building-103: 2-aa, service failed")
    assert lines[-1].startswith("c building-104")
    assert "\x1b" not in "".join(lines)
