"""Two that would change the same board at once: the second is told to wait, and the first is left alone."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from board_setup.board import lock, versions
from board_setup.board.layout import Layout


def command(*arguments: str, layout: Layout) -> list[str]:
    return [sys.executable, "-m", "board_setup.cli", *arguments, "--root", layout.root]


@pytest.fixture
def kit(tmp_path, make_kit) -> str:
    return str(make_kit(tmp_path / "kit.tar", "1"))


@pytest.fixture
def layout(tmp_path) -> Layout:
    return Layout(str(tmp_path / "root"))


@pytest.mark.parametrize("words", [["install", "--undo"], ["install", "--kit", "KIT"], ["rollback"]])
def test_what_comes_while_a_kit_is_installed_is_told_to_wait_and_spoils_nothing(kit, layout, words) -> None:
    install = command("install", "--kit", kit, layout=layout)
    with subprocess.Popen(install, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as first:
        assert first.stdout is not None
        while not first.stdout.readline().startswith("runtime …"):
            assert first.poll() is None
        first.send_signal(signal.SIGSTOP)
        said = [kit if word == "KIT" else word for word in words]
        second = subprocess.run(command(*said, layout=layout), capture_output=True, text=True)
        first.send_signal(signal.SIGCONT)
        assert first.stdout.read().endswith("1-aa is installed\n")
    assert (second.returncode, second.stdout) == (2, "")
    assert second.stderr.count("\n") == 1
    assert "another setup-board is at work here; wait until it is done" in second.stderr
    assert versions.current_version(layout) == "1-aa"


@pytest.mark.parametrize("words", [["install", "--undo", "--dry-run"], ["versions"], ["doctor"]])
def test_what_only_looks_need_not_wait(layout, words) -> None:
    with lock.alone(layout):
        done = subprocess.run(command(*words, layout=layout), capture_output=True, text=True)
    assert done.stdout
    assert done.stderr == ""


def test_one_that_was_killed_keeps_nobody_away(layout) -> None:
    script = (
        "import sys, time; from board_setup import lock; from board_setup.board.layout import Layout\n"
        "with lock.alone(Layout(sys.argv[1])): print('mine', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script, layout.root], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"mine\n"
        try:
            with pytest.raises(lock.BusyError), lock.alone(layout):
                pass
        finally:
            holder.kill()
        holder.wait()
        with lock.alone(layout):
            pass


def test_nothing_is_left_of_it(layout) -> None:
    with lock.alone(layout):
        pass
    assert not list(Path(layout.root).iterdir())
