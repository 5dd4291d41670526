import pytest
import torch

from edge_runtime.errors import UsageError
from train.data.build import load_data
from train.evaluation.logits import checkpoint_logits
from train.learning.recipes import Recipe
from train.learning.trainer import Trainer
from train.models.backbones import build_backbone
from train.models.checkpoint import load_checkpoint, load_model
from train.models.vit import ACCEPTED

transformers = pytest.importorskip("transformers", reason="needs transformers")

SMALL = dict(zip(ACCEPTED, (32, 2, 2, 48, 32, 8), strict=True))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small ViT of three classes, saved on the spot as Transformers saves one."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("vit")
    transformers.ViTForImageClassification(transformers.ViTConfig(num_labels=3, **SMALL)).save_pretrained(path)
    return path


def test_local_vit_gets_a_new_head(folder):
    model = build_backbone("vit_hf", weights=str(folder)).eval()
    assert model.options == SMALL
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 2)
    saved = transformers.ViTForImageClassification.from_pretrained(folder).state_dict()
    own = model.network.state_dict()
    assert all(torch.equal(own[key], saved[key]) for key in saved if not key.startswith("classifier"))


def test_vit_is_trained_resumed_and_judged(folder, faces, tmp_path):
    recipe = Recipe(weights=str(folder), pixels="article", input_size=32, epochs=1, batch=8, chances={}, ema=0.0)
    catalog = load_data(faces)
    best = Trainer(catalog, "vit_hf", recipe, tmp_path, workers=0, precision="no", device="cpu").run()
    checkpoint = load_checkpoint(best)
    assert checkpoint.contract.mean == (0.5, 0.5, 0.5)
    assert checkpoint.options == SMALL
    assert load_model(checkpoint)(torch.zeros(2, 3, 32, 32)).shape == (2, 2)
    assert checkpoint_logits(best, catalog.split("valid")).shape == (len(catalog.split("valid")), 2)
    assert Trainer(catalog, "vit_hf", recipe, tmp_path, workers=0, precision="no", device="cpu").state.progress.finished


def test_unavailable_vit_weights_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "empty").mkdir()
    for weights in (str(tmp_path / "empty"), "nobody/nothing"):
        with pytest.raises(UsageError, match="give a local folder") as error:
            build_backbone("vit_hf", weights=weights)
        assert "\n" not in str(error.value)
