import json
import subprocess
import sys

import pytest
import torch

from train.models.backbones import build_backbone
from train.models.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow
LAUNCHER = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")

SCRIPT = """
import sys
from pathlib import Path
from train.data.build import load_data
from train.learning.recipes import Recipe
from train.learning.trainer import Trainer
options = dict(epochs=2, batch=16, balance="source", chances={}, ema=0.5, learning_rate=1e-3, seed=3)
recipe = Recipe(weights=sys.argv[3], input_size=32, **options)
Trainer(load_data(sys.argv[1]), "vit_hf", recipe, Path(sys.argv[2]), workers=0, precision="no", device="cpu").run()
"""
"""The network has no batch statistics: those would differ between one process and two."""


def launch(command, script, folder, *arguments):
    (folder / "script.py").write_text(script)
    words = map(str, (*command, folder / "script.py", *arguments))
    done = subprocess.run([*words], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def small_vit(tmp_path):
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    config = transformers.ViTConfig(image_size=32, patch_size=8, hidden_dropout_prob=0.0, **sizes)
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    return tmp_path / "vit"


def test_two_processes_learn_what_one_learns(faces, small_vit, tmp_path):
    rows, weights = [], []
    for name, command in (("one", [sys.executable]), ("two", LAUNCHER)):
        launch(command, SCRIPT, tmp_path, faces, tmp_path / name, small_vit)
        rows.append([json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()])
        weights.append(load_checkpoint(tmp_path / name / "last.pth").state_dict)
    for one, two in zip(*rows, strict=True):
        for figure in ("step", "train_loss", "train_accuracy", "valid_loss", "auc"):
            assert one[figure] == pytest.approx(two[figure], abs=2e-3), figure
    begun = build_backbone("vit_hf", weights=str(small_vit)).state_dict()
    body = [key for key in begun if "classifier" not in key]  # the head is new
    one, two, start = (torch.cat([state[key].ravel() for key in body]) for state in (*weights, begun))
    assert float((one - two).norm() / (one - start).norm()) < 0.05


RESUMED = """
import sys
from contextlib import suppress
from pathlib import Path
from train.data.build import load_data
from train.learning.recipes import Recipe
from train.learning.trainer import Trainer
options = dict(epochs=3, staged=0.67) if sys.argv[4] == "staged" else dict(epochs=2)
recipe = Recipe(weights="none", input_size=32, batch=16, chances={}, ema=0.0, **options)
catalog, teacher, out = load_data(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
def trainer(name):
    return Trainer(catalog, "resnet18", recipe, out / name, teacher=teacher, workers=0, precision="no", device="cpu")
trainer("whole").run()
stopped = trainer("stopped")
stopped.stop()
with suppress(KeyboardInterrupt):
    stopped.run()
stopped.accelerator.wait_for_everyone()
again = trainer("stopped")
assert again.state.progress.step > 0
again.run()
"""


@pytest.mark.parametrize("way", ["whole", "staged"])
def test_two_processes_resume_with_a_teacher(faces, tiny_checkpoint, tmp_path, way):
    launch(LAUNCHER, RESUMED, tmp_path, faces, tiny_checkpoint, tmp_path, way)
    whole, stopped = (load_checkpoint(tmp_path / name / "last.pth") for name in ("whole", "stopped"))
    for key, weight in whole.state_dict.items():
        assert torch.allclose(stopped.state_dict[key].float(), weight.float(), atol=1e-4), key
    assert set(stopped.extra["hints"]) == {
        f"{stride}.{part}" for stride in (4, 8, 16, 32) for part in ("weight", "bias")
    }
