"""Pictures under the board's instruction set, to catch what crashes there."""

import os
import shutil
import subprocess
import sys

import pytest

QEMU = shutil.which("qemu-x86_64")


@pytest.mark.slow
@pytest.mark.skipif(QEMU is None, reason="needs qemu-user")
def test_edge_detect_runs_on_the_boards_processor(bundle_path, tmp_path, red):
    pillow_heif = pytest.importorskip("pillow_heif", reason="needs pillow-heif")
    red.save(tmp_path / "one.jpg", quality=95)
    red.save(tmp_path / "two.avif", quality=95)
    pillow_heif.from_pillow(red).save(tmp_path / "three.heic", quality=95)
    command = [
        str(QEMU),
        "-cpu",
        "Snowridge",
        sys.executable,
        "-m",
        "edge_runtime.cli",
        "one.jpg",
        "two.avif",
        "three.heic",
    ]
    # Without it, numpy's OpenBLAS uses instructions that this processor lacks.
    environment = {**os.environ, "OPENBLAS_CORETYPE": "Nehalem", "DEEPFAKE_EDGE_MODEL": str(bundle_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [
        ["one.jpg", "fake"],
        ["two.avif", "fake"],
        ["three.heic", "fake"],
    ]
