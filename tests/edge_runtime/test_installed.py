"""The wheel works alone in a fresh environment, as on a board, without training libraries."""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*command, **options):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def copy_of_the_source(target):
    """Copy the source of the wheel, since building leaves files behind."""
    for package in ("train", "export", "edge_runtime", "benchmarks", "board_setup"):
        shutil.copytree(ROOT / package, target / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, target / name)
    return target


@pytest.fixture(scope="module")
def installed(tmp_path_factory, bundle_path):
    """The programs of an environment that holds the wheel and its dependencies."""
    folder = tmp_path_factory.mktemp("installed")
    source = copy_of_the_source(folder / "source")
    shutil.rmtree(source / "edge_runtime/detectors", ignore_errors=True)
    shutil.copytree(bundle_path, source / "edge_runtime/detectors/faces")
    run(sys.executable, "-m", "build", "--wheel", "--outdir", folder, source)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "env", with_pip=True)
    programs = folder / "env" / "bin"
    quiet = ("--quiet", "--disable-pip-version-check")
    run(programs / "python", "-m", "pip", "install", *quiet, "-c", ROOT / "constraints.txt", wheel)
    return programs


@pytest.mark.slow
def test_the_wheel_alone_judges_a_picture(installed, tmp_path, red):
    red.save(tmp_path / "one.png")
    environment = {**os.environ, "PYTHONPATH": "", "DEEPFAKE_EDGE_MODEL": ""}
    out = run(installed / "edge-detect", "one.png", cwd=tmp_path, env=environment)
    assert out.startswith("one.png  fake")
    missing = (
        "import importlib.util as u; print([n for n in ('torch', 'sklearn', 'nncf', 'fastapi') if u.find_spec(n)])"
    )
    assert run(installed / "python", "-c", missing, cwd=tmp_path).strip() == "[]"
