"""Two installations that would change the same board at once: the second is refused, the first is left alone."""

import subprocess
import sys
from pathlib import Path

import pytest

from board_setup import cli
from board_setup.board import lock
from board_setup.board.layout import Layout


@pytest.fixture
def layout(tmp_path) -> Layout:
    return Layout(str(tmp_path / "root"))


@pytest.mark.parametrize("words", [["install", "--undo"], ["install", "--kit", "kit.tar"], ["rollback"]])
def test_second_change_is_refused(layout, words, capsys) -> None:
    with lock.exclusive(layout), pytest.raises(SystemExit) as ended:
        cli.main([*words, "--root", layout.root])
    told = capsys.readouterr()
    assert (ended.value.code, told.out, told.err.count("\n")) == (lock.BusyError.exit_code, "", 1)
    assert "another setup-board is changing this board" in told.err


@pytest.mark.parametrize("words", [["install", "--undo", "--dry-run"], ["versions"]])
def test_reading_needs_no_lock(layout, words, capsys) -> None:
    with lock.exclusive(layout), pytest.raises(SystemExit) as ended:
        cli.main([*words, "--root", layout.root])
    assert (ended.value.code, capsys.readouterr().err) == (0, "")


def test_killed_process_releases_the_lock(layout) -> None:
    script = (
        "import sys, time; from board_setup.board import lock; from board_setup.board.layout import Layout\n"
        "with lock.exclusive(Layout(sys.argv[1])): print('mine', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script, layout.root], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"mine\n"
        try:
            with pytest.raises(lock.BusyError), lock.exclusive(layout):
                pass
        finally:
            holder.kill()
        holder.wait()
        with lock.exclusive(layout):
            pass


def test_other_users_can_not_hold_the_lock_of_a_board(tmp_path, monkeypatch) -> None:
    path = tmp_path / "setup-board.lock"
    monkeypatch.setattr(lock, "LOCK_FILE", str(path))
    hold = "import fcntl, os, sys; fcntl.flock(os.open('/', os.O_RDONLY), fcntl.LOCK_EX); print('held', flush=True); "
    with subprocess.Popen(
        [sys.executable, "-c", f"{hold}sys.stdin.read()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with lock.exclusive(Layout("/")):
            assert path.stat().st_mode & 0o777 == 0o600
            with pytest.raises(lock.BusyError), lock.exclusive(Layout("/")):
                pass
        holder.kill()


def test_no_lock_file_is_left(layout) -> None:
    with lock.exclusive(layout):
        pass
    assert not list(Path(layout.root).iterdir())
