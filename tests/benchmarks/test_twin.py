import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.measure.cases import Case, Engine, Job, Limits, Mode
from benchmarks.measure.children import run_job

TWIN = ("qemu-x86_64", "-cpu", "Snowridge", "-E", "OPENBLAS_CORETYPE=Nehalem")

SCRIPT = """
import json, pathlib, sys
from benchmarks.measure.cases import Job
from benchmarks.measure.children import emulator, run_job
folder = pathlib.Path(sys.argv[1])
done = run_job(Job.from_dict(json.loads((folder / "job.json").read_text())), folder)
(folder / "out.json").write_text(json.dumps({**done.result, "emulator": emulator(), "around": done.figures}))
"""


def test_a_round_measured_on_the_twin_runs_there_whole_and_gives_the_boards_logits(bundle, faces, tmp_path):
    if not shutil.which(TWIN[0]):
        pytest.skip("needs qemu-user")
    pictures = tuple(str(path) for path in sorted(faces.rglob("*.png"))[:3])
    case = Case("tiny", Engine.RUNTIME, "fp32", "CPU", Mode.LATENCY, "native")
    job = Job(case, str(bundle.path), None, pictures, Limits(0.01, 1, 1))
    (tmp_path / "job.json").write_text(json.dumps(job.to_dict()))

    subprocess.run([*TWIN, sys.executable, "-c", SCRIPT, str(tmp_path)], check=True, capture_output=True)

    found = json.loads((tmp_path / "out.json").read_text())
    capped = run_job(replace(job, case=replace(case, isa="sse42")), tmp_path)
    np.testing.assert_allclose(found["logits"], capped.result["logits"], atol=1e-5)
    assert found["emulator"][1:3] == ["-cpu", "Snowridge"]
    # The child was emulated too: natively it would have run AVX kernels.
    assert not [name for name in found["facts"]["kernels"] if "avx" in name]
    assert "pace" not in found["around"]
