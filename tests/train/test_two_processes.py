import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from train.models.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow
LAUNCHER = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def run(words):
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr


def launch(command, script, folder, *arguments):
    (folder / "script.py").write_text(script)
    run([*command, folder / "script.py", *arguments])


OPTIONS = (
    *("--arch", "tiny", "--weights", "none", "--batch", "8", "--epochs", "2", "--workers", "0", "--no-pictures"),
    *("--precision", "no", "--device", "cpu"),
)
DOUBLE = Path(__file__).parents[1] / "helpers" / "double_precision.py"


def difference(one, other):
    """The largest difference of two runs' weights, batch statistics and their averages."""
    first, second = (load_checkpoint(out / "last.pth") for out in (one, other))
    pairs = [(first.state_dict, second.state_dict), (first.extra["average"], second.extra["average"])]
    return max(float((a[key].double() - b[key].double()).abs().max()) for a, b in pairs for key in a)


def figures(out):
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    names = ("step", "train_loss", "train_accuracy", "valid_loss", "valid_accuracy", "auc")
    return [row[name] for row in rows for name in names]


def test_three_processes_learn_what_one_learns(faces, tmp_path):
    """A batch of 8 is 3, 3 and 2 faces; the network has batch statistics."""
    for name, command in (("one", [sys.executable]), ("three", [*LAUNCHER[:-1], "3"])):
        run([*command, DOUBLE, faces, "--out", tmp_path / name, *OPTIONS])
    assert difference(tmp_path / "one", tmp_path / "three") < 1e-7
    assert figures(tmp_path / "three") == pytest.approx(figures(tmp_path / "one"), rel=1e-9)
    assert (tmp_path / "three" / "best.pth").exists()


RESUMED = """
import sys
from contextlib import suppress
from pathlib import Path
from train.data.build import load_data
from train.evaluation.logits import PictureGoneError
from train.learning.recipes import Recipe
from train.learning.trainer import Trainer
options = dict(epochs=3, staged=0.67) if sys.argv[4] == "staged" else dict(epochs=2)
recipe = Recipe(weights="none", input_size=32, batch=8, chances={}, ema=0.0, **options)
catalog, teacher, out = load_data(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
def trainer(name, **options):
    fixed = dict(teacher=teacher, workers=0, precision="no", device="cpu")
    return Trainer(catalog, "resnet18", recipe, out / name, **fixed, **options)
trainer("whole").run()
stopped = trainer("stopped")
if sys.argv[4] == "gone":
    key = stopped.order.batches(0, rank=1, world=2)[2][0]
    picture = stopped.dataset.records[key % len(stopped.dataset)].path
    hidden = picture.with_suffix(".hidden")
    if stopped.accelerator.is_main_process:
        picture.rename(hidden)
else:
    stopped.stop()
stopped.accelerator.wait_for_everyone()
with suppress(KeyboardInterrupt, PictureGoneError):
    stopped.run()
stopped.accelerator.wait_for_everyone()
if sys.argv[4] == "gone" and stopped.accelerator.is_main_process:
    hidden.rename(picture)
stopped.accelerator.wait_for_everyone()
again = trainer("stopped", save_every_s=0.0)
assert again.state.progress.step > 0
again.run()
"""


@pytest.mark.parametrize("way", ["whole", "staged", "gone"])
def test_two_processes_resume_with_a_teacher_and_their_figures(make_faces, tiny_checkpoint, tmp_path, way):
    launch(LAUNCHER, RESUMED, tmp_path, make_faces(count=24), tiny_checkpoint, tmp_path, way)
    whole, stopped = (load_checkpoint(tmp_path / name / "last.pth") for name in ("whole", "stopped"))
    for key, weight in whole.state_dict.items():
        assert torch.allclose(stopped.state_dict[key].float(), weight.float(), atol=1e-4), key
    rows, again = (run.extra["progress"]["history"] for run in (whole, stopped))
    for name in ("step", "train_loss", "train_accuracy"):
        assert [row.get(name, 0) for row in again] == pytest.approx([row.get(name, 0) for row in rows], rel=1e-4), name
    assert set(stopped.extra["hints"]) == {
        f"{stride}.{part}" for stride in (4, 8, 16, 32) for part in ("weight", "bias")
    }
