import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.studies.small import write_small_bundle
from train import cli
from train.evaluation.evaluation import open_subject
from train.models.checkpoint import load_checkpoint, load_model, save_checkpoint

BIN = Path(sys.executable).parent


def run(name, *arguments, **options):
    return subprocess.run([BIN / name, *map(str, arguments)], capture_output=True, text=True, **options)


@pytest.fixture(scope="module")
def way(tmp_path_factory, faces):
    """From folders to a judged checkpoint, by the commands as a user types them; no shell expands `~` for them."""
    root = tmp_path_factory.mktemp("way")
    home = {"env": {**os.environ, "HOME": str(root), "XDG_STATE_HOME": str(root / "state")}}
    done = {}
    done["prepare"] = run("prepare-faces", faces, "--out", "~/prepared", **home)
    quick = ("--arch", "shufflenet_v2_x1_0", "--preset", "quick", "--epochs", 1, "--batch", 8, "--workers", 0)
    done["train"] = run("train-detector", "~/prepared", *quick, "--out", "~/run", "--licence", "made for tests", **home)
    judge = ("--robustness", "off", "--bootstrap", 20, "--json", "--out", "~/test")
    done["evaluate"] = run("evaluate-detector", "~/run/best.pth", "~/prepared", *judge, **home)
    return root, done


def test_three_commands_lead_from_folders_to_a_judged_checkpoint(way):
    root, done = way
    for name, result in done.items():
        assert result.returncode in ((0, 1) if name == "prepare" else (0,)), result.stderr
        assert "Traceback" not in result.stderr
    for name in ("catalog.csv", "audit.html"):
        assert (root / "prepared" / name).is_file()
    for name in (
        "best.pth",
        "last.pth",
        "metrics.jsonl",
        "evaluation.json",
        "report.html",
        "MODEL_CARD.md",
        "catalog.csv",
    ):
        assert (root / "run" / name).is_file()
    figures = json.loads(done["evaluate"].stdout)
    assert figures["data"]["split"] == "test"
    assert json.loads((root / "test" / "evaluation.json").read_text()) == figures


def test_the_best_checkpoint_carries_its_thresholds_and_its_catalog(way):
    checkpoint = load_checkpoint(way[0] / "run" / "best.pth")
    assert checkpoint.contract.calibration("checkpoint").fitted
    assert Path(checkpoint.catalog).is_file()


def test_training_reports_on_validation_and_says_that_it_was_chosen_there(way):
    evaluation = json.loads((way[0] / "run" / "evaluation.json").read_text())
    assert evaluation["data"]["split"] == "valid"
    assert any("best figures on the validation split" in alarm for alarm in evaluation["alarms"])


def test_the_card_says_what_it_is_made_of_and_that_it_is_no_proof(way):
    card = (way[0] / "run" / "MODEL_CARD.md").read_text()
    for part in (
        "the best on validation, not what to expect",
        "It is not proof",
        "made for tests",
        "shufflenet_v2_x1_0",
        "| AUC |",
        "diffusion",
    ):
        assert part in card


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("prepare-faces", "/nowhere"), "/nowhere: no such folder"),
        (("train-detector", "/nowhere"), "/nowhere: no such folder"),
        (("evaluate-detector", "/nowhere.pth", "/nowhere"), "/nowhere.pth: not found"),
    ],
)
def test_a_mistake_is_told_in_one_line_with_exit_code_2(command, said, tmp_path):
    result = run(*command, cwd=tmp_path)
    assert result.returncode == 2
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.fixture(scope="module")
def bad_things(tmp_path_factory, fill, tiny_checkpoint):
    """Folders without a class, checkpoints and bundles that are not what they should be."""
    root = tmp_path_factory.mktemp("bad")
    for name in ("one_class", "empty_class"):
        shutil.rmtree(fill(root / name, 3) / "fake")
    (root / "empty_class" / "fake").mkdir()
    tiny = load_checkpoint(tiny_checkpoint)
    torch.save(dict(tiny.state_dict), root / "bare.pth")
    save_checkpoint(root / "liar.pth", load_model(tiny), tiny.contract.replace(architecture="shufflenet_v2_x1_0"))
    weights = write_small_bundle(root / "changed") / "int8" / "model.bin"
    weights.write_bytes(bytes([weights.read_bytes()[0] ^ 1]) + weights.read_bytes()[1:])
    return root


TRAIN = ("train-detector", "good", "--arch", "shufflenet_v2_x1_0", "--preset", "scratch")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("prepare-faces", "one_class"), "give fake faces too: --fake DIR"),
        (("prepare-faces", "empty_class"), "give fake faces too: --fake DIR"),
        (("train-detector", "one_class"), "one_class: holds no folder fake/; put the fake faces there"),
        (("train-detector", "empty_class"), "empty_class/fake: holds no pictures; put the fake faces there"),
        ((*TRAIN, "--staged", "0.5"), "--staged 0.5: needs --teacher, the checkpoint whose maps are learnt"),
        ((*TRAIN[:-1], "taught"), "--preset taught: needs --teacher, the checkpoint whose maps are learnt"),
        ((*TRAIN, "--teacher", "liar.pth"), "liar.pth: not the weights of shufflenet_v2_x1_0"),
        ((*TRAIN, "--teacher", "bare.pth"), "bare.pth: no checkpoint of this program; export-openvino takes"),
        ((*TRAIN, "--teacher", "changed"), "changed: is a folder; give a checkpoint (.pth)"),
        ((*TRAIN, "--weights", "bare.pth"), "bare.pth: not the weights of shufflenet_v2_x1_0"),
        (("evaluate-detector", "changed", "one_class"), "one_class: holds no folder fake/"),
        (
            ("evaluate-detector", "changed", "good"),
            "changed: int8/model.bin was changed; export or copy the bundle again",
        ),
        (("evaluate-detector", "liar.pth", "good"), "liar.pth: not the weights of shufflenet_v2_x1_0"),
        (("evaluate-detector", "bare.pth", "good"), "bare.pth: no checkpoint of this program; export-openvino takes"),
        (("evaluate-detector", "nowhere", "good"), "nowhere: not found; give a checkpoint (.pth) or a bundle"),
    ],
)
def test_what_can_not_be_used_is_named_in_one_line_and_nothing_is_written(
    command, said, bad_things, faces, monkeypatch, capsys, tmp_path
):
    monkeypatch.chdir(bad_things)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    name, *words = (str(faces) if word == "good" else word for word in command)
    monkeypatch.setattr(sys, "argv", [name, *words, "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as ended:
        getattr(cli, f"{name.replace('-', '_')}_main")()
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2
    assert line.startswith("error: ")
    assert said in line
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_is_called_by_its_folder_wherever_it_is_said_from(tiny_checkpoint, monkeypatch):
    monkeypatch.chdir(tiny_checkpoint.parent)
    assert open_subject(tiny_checkpoint.name).name == f"{tiny_checkpoint.parent.name}/tiny.pth"
