import pickle
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.measure.cases import Case, Job, Mode, TimingLimits
from benchmarks.measure.children import run_job
from board_setup.isa import emulator

TWIN = ("qemu-x86_64", "-cpu", "Snowridge", "-E", "OPENBLAS_CORETYPE=Nehalem")

SCRIPT = """
import pathlib, pickle, sys
from benchmarks.measure.children import run_job
from board_setup.isa import emulator
folder = pathlib.Path(sys.argv[1])
found = run_job(pickle.loads((folder / "job").read_bytes()), folder)
(folder / "found").write_bytes(pickle.dumps((found, emulator())))
"""


@pytest.mark.slow
def test_round_on_the_twin_gives_the_boards_logits(bundle, faces, tmp_path):
    if not shutil.which(TWIN[0]):
        pytest.skip("needs qemu-user")
    job = Job(
        case=Case("tiny", "fp32", Mode.LATENCY),
        bundle=str(bundle.path),
        checkpoint=None,
        pictures=tuple(str(path) for path in sorted(faces.rglob("*.png"))[:3]),
        limits=TimingLimits(seconds=0.01, frames=1, warmup_frames=1),
    )
    (tmp_path / "job").write_bytes(pickle.dumps(job))
    subprocess.run([*TWIN, sys.executable, "-c", SCRIPT, str(tmp_path)], check=True, capture_output=True)
    found, command = pickle.loads((tmp_path / "found").read_bytes())
    capped = run_job(replace(job, case=replace(job.case, isa="sse42")), tmp_path)
    np.testing.assert_allclose(found.logits, capped.logits, atol=1e-5)
    assert command[1:3] == ["-cpu", "Snowridge"]
    # The worker was emulated too: natively it would have run AVX kernels.
    assert not [name for name in found.facts["kernels"] if "avx" in name]
    assert "pace" not in found.figures
    assert emulator() == []
