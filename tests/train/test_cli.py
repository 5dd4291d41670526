import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from benchmarks.studies.small import write_small_bundle
from train import cli
from train.evaluation.evaluation import open_subject
from train.models.checkpoint import load_checkpoint, load_model, save_checkpoint

BIN = Path(sys.executable).parent


def run(name, *arguments, **options):
    return subprocess.run([BIN / name, *map(str, arguments)], capture_output=True, text=True, **options)


@pytest.mark.slow
def test_three_commands_make_a_judged_checkpoint(tmp_path, faces):
    """With commands as a user types them; no shell expands `~`."""
    root, done = tmp_path, {}
    home = {"env": {**os.environ, "HOME": str(root), "XDG_STATE_HOME": str(root / "state")}}
    done["prepare"] = run("prepare-faces", faces, "--out", "~/prepared", **home)
    quick = ("--arch", "shufflenet_v2_x1_0", "--preset", "quick", "--epochs", 1, "--batch", 8, "--workers", 0)
    done["train"] = run("train-detector", "~/prepared", *quick, "--out", "~/run", "--licence", "made for tests", **home)
    judge = ("--robustness", "off", "--bootstrap", 20, "--json", "--out", "~/test")
    done["evaluate"] = run("evaluate-detector", "~/run/best.pth", "~/prepared", *judge, **home)
    for name, result in done.items():
        assert result.returncode in ((0, 1) if name == "prepare" else (0,)), result.stderr
        assert "Traceback" not in result.stderr
    written = "best.pth last.pth metrics.jsonl evaluation.json report.html MODEL_CARD.md catalog.csv"
    for folder, names in (("prepared", "catalog.csv audit.html"), ("run", written)):
        assert set(names.split()) <= {path.name for path in (root / folder).iterdir()}
    figures = json.loads(done["evaluate"].stdout)
    assert figures["data"]["split"] == "test"
    assert json.loads((root / "test" / "evaluation.json").read_text()) == figures
    checkpoint, card = load_checkpoint(root / "run" / "best.pth"), (root / "run" / "MODEL_CARD.md").read_text()
    assert checkpoint.contract.calibration("checkpoint").fitted
    assert Path(checkpoint.catalog).is_file()
    assert json.loads((root / "run" / "evaluation.json").read_text())["data"]["split"] == "valid"
    assert all(part in card for part in ("made for tests", "shufflenet_v2_x1_0", "| AUC |"))


@pytest.fixture(scope="module")
def bad_things(tmp_path_factory, fill, tiny_checkpoint):
    """Folders without a class, checkpoints and bundles that can't be used."""
    root = tmp_path_factory.mktemp("bad")
    for name in ("one_class", "empty_class"):
        shutil.rmtree(fill(root / name, 3) / "fake")
    (root / "empty_class" / "fake").mkdir()
    tiny = load_checkpoint(tiny_checkpoint)
    torch.save(dict(tiny.state_dict), root / "bare.pth")
    (root / "half.pth").write_bytes((root / "bare.pth").read_bytes()[:5000])
    Image.new("RGB", (8, 8)).save(root / "face.jpg")
    save_checkpoint(root / "liar.pth", load_model(tiny), tiny.contract.replace(architecture="shufflenet_v2_x1_0"))
    weights = write_small_bundle(root / "changed") / "int8" / "model.bin"
    weights.write_bytes(bytes([weights.read_bytes()[0] ^ 1]) + weights.read_bytes()[1:])
    return root


def call(monkeypatch, name, *words):
    """Run a command in this process and return its exit code."""
    monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        getattr(cli, f"{name.replace('-', '_')}_main")()
    return ended.value.code


TRAIN = ("train-detector", "good", "--arch", "shufflenet_v2_x1_0", "--preset", "scratch")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("prepare-faces", "/nowhere"), "/nowhere: not found; give folders of faces"),
        (("prepare-faces", "bare.pth"), "bare.pth: is a file; give its folder"),
        (("prepare-faces", "--real", "bare.pth"), "bare.pth: is a file; give its folder"),
        (("prepare-faces", "--real", "nowhere"), "nowhere: not found; give folders of real faces"),
        (("prepare-faces", "--real", "one_class/real", "--fake", "one_class/real"), "given as real and as fake; name"),
        (("prepare-faces", "one_class", "--fake", "one_class"), "given as real and as fake; name each folder once"),
        (("prepare-faces", "good", "--face-model", "face.tflite"), "--face-model needs --crop"),
        (("train-detector", "/nowhere"), "/nowhere: not found; give a catalog.csv or a folder with real/ and fake/"),
        ((*TRAIN, "--weights", "nope"), "--weights nope: give imagenet, none, or a file"),
        ((*TRAIN, "--weights", "face.jpg"), "face.jpg: not a PyTorch checkpoint, or damaged; give the .pth that"),
        (("evaluate-detector", "face.jpg", "good"), "face.jpg: not a PyTorch checkpoint, or damaged; give the .pth"),
        (("evaluate-detector", "half.pth", "good"), "half.pth: not a PyTorch checkpoint, or damaged; give the .pth"),
        (("prepare-faces", "one_class"), "give fake faces too: --fake DIR"),
        (("prepare-faces", "empty_class"), "give fake faces too: --fake DIR"),
        (("train-detector", "one_class"), "one_class: holds no fake pictures"),
        (("train-detector", "empty_class"), "empty_class: holds no fake pictures"),
        ((*TRAIN, "--without", "blurr"), "--without blurr: unknown"),
        ((*TRAIN, "--progressive", "64"), "--progressive 64: give shares"),
        ((*TRAIN, "--leave-out", "gan"), "--leave-out gan: not a source or generator of the catalog; choose from"),
        ((*TRAIN, "--input-size", "100"), "--input-size 100: give a multiple of 32"),
        ((*TRAIN, "--arch", "vit_b_16", "--input-size", "160"), "--input-size 160: vit_b_16 does not take it"),
        ((*TRAIN, "--arch", "resnet5"), "--arch resnet5: unknown backbone"),
        ((*TRAIN, "--staged", "0.5"), "--staged 0.5: needs --teacher, the checkpoint whose maps are learned"),
        ((*TRAIN[:-1], "taught"), "--preset taught: needs --teacher, the checkpoint whose maps are learned"),
        ((*TRAIN, "--teacher", "liar.pth"), "liar.pth: not the weights of shufflenet_v2_x1_0"),
        ((*TRAIN, "--teacher", "bare.pth"), "bare.pth: not a checkpoint of this program; export-openvino"),
        ((*TRAIN, "--teacher", "changed"), "changed: is a directory; give a checkpoint (.pth)"),
        ((*TRAIN, "--weights", "bare.pth"), "bare.pth: not the weights of shufflenet_v2_x1_0"),
        (("evaluate-detector", "changed", "one_class"), "one_class: holds no fake pictures"),
        (("evaluate-detector", "changed", "good"), "changed: int8/model.bin was changed; export or copy the bundle"),
        (("evaluate-detector", "liar.pth", "good"), "liar.pth: not the weights of shufflenet_v2_x1_0"),
        (("evaluate-detector", "bare.pth", "good"), "bare.pth: not a checkpoint of this program; export-openvino"),
        (("evaluate-detector", "nowhere", "good"), "nowhere: not found; give a checkpoint (.pth) or a bundle"),
    ],
)
def test_unusable_input_is_one_line_before_any_output(command, said, bad_things, faces, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(bad_things)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    words = (str(faces) if word == "good" else word for word in command)
    assert call(monkeypatch, *words, "--out", tmp_path / "out") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert said in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("place", ["a_file", "a_file/below"])
def test_unwritable_output_is_refused_before_work(place, faces, tmp_path, monkeypatch, capsys):
    (tmp_path / "a_file").touch()
    monkeypatch.setattr("train.commands.train.load_data", lambda *_, **__: pytest.fail("worked before"))
    assert call(monkeypatch, "train-detector", faces, "--out", tmp_path / place) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path / "a_file") in line


@pytest.mark.parametrize(
    "option", ["--preset", "--input", "--balance", "--keep", "--precision", "--device", "--robustness"]
)
def test_unknown_choice_is_refused(option, monkeypatch, capsys):
    name = "evaluate-detector" if option == "--robustness" else "train-detector"
    assert call(monkeypatch, name, option, "nonsense", "somewhere") == 2
    assert option in capsys.readouterr().err


def test_checkpoint_is_named_by_its_folder(tiny_checkpoint, monkeypatch):
    monkeypatch.chdir(tiny_checkpoint.parent)
    assert open_subject(tiny_checkpoint.name).name == f"{tiny_checkpoint.parent.name}/tiny.pth"
