"""The Makefile and what runs before anything lands: nothing of the user's is removed, nothing that hangs passes."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks.demo.demo import MARK

ROOT = Path(__file__).resolve().parents[1]


def make(folder: Path, *words: str, **variables: str) -> str:
    if shutil.which("make") is None:
        pytest.skip("needs make")
    command = ["make", "-f", ROOT / "Makefile", "-C", folder, *words]
    done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    for name in (f"demo/{MARK}", f"other/{MARK}", "photos/1.jpg", ".venv/bin/python"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    return tmp_path


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_clean_ignores_the_environment(clone):
    make(clone, "clean", OUT=str(clone / "photos"))
    assert left(clone) == {"other", "photos"}


def test_clean_keeps_what_the_demo_did_not_make(clone):
    assert "photos is kept" in make(clone, "clean", "OUT=photos")
    make(clone, "clean", "OUT=other")
    assert left(clone) == {"demo", "photos"}
    (clone / "demo" / MARK).unlink()
    make(clone, "clean")
    assert left(clone) == {"demo", "photos"}


@pytest.mark.parametrize(
    ("codes", "runs", "ended"),
    [([0], 1, 0), ([1, 0], 2, 0), ([1, 1], 2, 1), *(([code, 0], 1, code) for code in (2, 3, 124, 137))],
)
def test_only_failed_tests_are_tried_again(tmp_path, codes, runs, ended):
    """A run that hung, or crashed, has not noted what failed: `--last-failed` would try something else, and pass."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci")
    (tmp_path / "codes").write_text("".join(f"{code}\n" for code in codes))
    python = 'echo "$*" >> runs; code=$(head -n 1 codes); sed -i 1d codes; exit $code'
    for name, text in (("make", ""), ("dpkg-query", "echo install ok installed"), (".venv/bin/python", python)):
        program = tmp_path / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([tmp_path / ".ci" / "run"], env=environment, capture_output=True, text=True)
    said = (tmp_path / "runs").read_text().splitlines()
    assert (done.returncode, len(said)) == (ended, runs), done.stderr
    assert ["--last-failed" in line for line in said] == [False, True][:runs]
