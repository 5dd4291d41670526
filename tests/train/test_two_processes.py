import json
import subprocess
import sys

import pytest

SCRIPT = """
import sys
from pathlib import Path
from train.catalog import load_data
from train.recipes import Recipe
from train.trainer import Training
recipe = Recipe(weights="none", input_size=32, epochs=3, batch=16, chances={}, ema=0.0, learning_rate=3e-3, seed=3)
Training(load_data(sys.argv[1]), "shufflenet_v2_x1_0", recipe, Path(sys.argv[2]), workers=0,
         precision="no", device="cpu").run()
"""


@pytest.mark.slow
@pytest.mark.xfail(
    strict=False, reason="on so few faces two processes may end at another loss than one: not explained yet"
)
def test_two_processes_learn_what_one_learns(faces, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    alone = [sys.executable, str(script)]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    rows = []
    for name, command in (("one", alone), ("two", launcher)):
        subprocess.run([*command, str(faces), str(tmp_path / name)], check=True, capture_output=True, timeout=900)
        rows.append([json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()])
    assert [row["step"] for row in rows[0]] == [row["step"] for row in rows[1]]
    assert rows[0][-1]["train_loss"] == pytest.approx(rows[1][-1]["train_loss"], abs=0.25)
    assert rows[0][-1]["auc"] == pytest.approx(rows[1][-1]["auc"], abs=0.35)
