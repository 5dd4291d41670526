import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from train.checkpoint import load_checkpoint

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
