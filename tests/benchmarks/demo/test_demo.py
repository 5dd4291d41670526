import io
import json
import shlex
from pathlib import Path

import pytest
import torch
from rich.console import Console

from benchmarks.demo import demo, pace
from benchmarks.demo.demo import (
    OFFLINE,
    DemoScale,
    Summary,
    has_weights,
    plan_demo,
    print_table,
    run_demo,
    scale_to_machine,
    start_pretrained,
)
from benchmarks.demo.pace import Pace
from benchmarks.demo.steps import JOURNAL, StepError, StepResult, StepState
from edge_runtime.errors import DataError, UsageError
from train.models.backbones import build_backbone

OUT, OWN, SCALE = Path("demo"), Path("mine"), DemoScale()


def commands(data: Path | None = None, scale: DemoScale = SCALE) -> dict[str, tuple[str, ...]]:
    """By program; the last command of edge-detect and python counts."""
    return {step.command[0]: step.command for step in plan_demo(OUT, data, scale)}


def option(command: tuple[str, ...], name: str) -> str:
    return command[command.index(name) + 1]


@pytest.mark.parametrize(("before", "marked"), [([], True), (["mine.jpg"], False)])
def test_only_a_folder_that_the_demo_made_is_marked(tmp_path, monkeypatch, before, marked):
    def fail(steps, folder):
        raise StepError("stopped")

    for name in before:
        (tmp_path / name).touch()
    monkeypatch.setattr(demo, "run_steps", fail)
    with pytest.raises(StepError):
        run_demo(tmp_path, None, demo.TINY)
    assert (tmp_path / demo.MARK).exists() is marked


def test_drawn_faces_train_a_demo_from_scratch():
    train = commands()["train-detector"]
    assert (option(train, "--preset"), option(train, "--arch")) == ("demo", "resnet50")
    assert "--demo" in train
    assert "--weights" not in train


@pytest.mark.parametrize(("downloadable", "arch"), [(True, "resnet50"), (False, "efficientnet_lite0")])
def test_own_faces_start_from_weights_that_are_there(tmp_path, monkeypatch, downloadable, arch):
    monkeypatch.setattr(demo, "has_weights", lambda arch: downloadable)
    found = commands(OWN, start_pretrained(tmp_path, SCALE))
    train = found["train-detector"]
    assert (option(train, "--arch"), option(train, "--weights")) == (arch, "imagenet")
    assert "--demo" not in train
    assert "--clip" in found["python"]


def test_offline_backbone_has_its_weights_installed():
    first, again, untrained = (
        build_backbone(OFFLINE, weights=w)._conv_stem.weight for w in ("imagenet", "imagenet", "none")
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, untrained)


def test_downloaded_weights_need_no_network(tmp_path, monkeypatch):
    def unreachable(*_):
        raise OSError("no network")

    monkeypatch.setattr("socket.create_connection", unreachable)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    assert not has_weights("resnet50")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "resnet50-11ad3fa6.pth").touch()
    assert has_weights("resnet50")


def test_each_step_reads_what_the_last_one_made():
    found = commands()
    assert found["prepare-faces"][1] == "demo/faces"
    assert found["evaluate-detector"][1:3] == ("demo/run/best.pth", "demo/catalog")
    assert found["export-openvino"][1] == "demo/run/best.pth"
    assert option(found["edge-benchmark"], "--model") == option(found["edge-detect"], "--model") == "demo/detector"


def test_missing_own_faces_are_refused_first(tmp_path):
    with pytest.raises(DataError, match="nowhere: not found"):
        run_demo(tmp_path / "out", tmp_path / "nowhere", SCALE)
    assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match="your faces"):
        run_demo(tmp_path / "out", tmp_path, SCALE)


@pytest.mark.parametrize("weights", ["imagenet", "none"])
def test_a_trained_demo_keeps_its_backbone(tmp_path, monkeypatch, weights):
    monkeypatch.setattr(demo, "has_weights", lambda arch: pytest.fail("asked the network"))
    started = DemoScale(arch="resnet18", weights=weights)
    command = shlex.join(commands(OWN, started)["train-detector"])
    (tmp_path / JOURNAL).write_text(json.dumps({demo.TRAIN: {"command": command}}))
    assert start_pretrained(tmp_path, SCALE) == started


@pytest.mark.parametrize("damage", [None, "", "{", "[]", '{"epochs": "many"}'])
def test_a_demo_that_goes_on_keeps_its_epochs(tmp_path, monkeypatch, damage):
    monkeypatch.setattr(pace, "choose_epochs", lambda *_: Pace(20.4, 9, 18))
    found = scale_to_machine(tmp_path / "demo", SCALE)
    assert found.epochs == 9
    if damage is None:
        monkeypatch.setattr(pace, "choose_epochs", lambda *_: pytest.fail("measured again"))
    else:
        (tmp_path / "demo" / "pace.json").write_text(damage)
    assert scale_to_machine(tmp_path / "demo", SCALE) == found


@pytest.mark.parametrize(("problem", "code"), [("", 0), ("export-openvino: INT8 was refused", 1)])
def test_exit_code_shows_problems(monkeypatch, problem, code):
    results = [StepResult("Export", StepState.PARTIAL if problem else StepState.DONE, 1.0, problem)]
    monkeypatch.setattr(demo, "run_demo", lambda *_: results)
    assert demo.demo(OUT) == code


def test_table_shows_what_was_not_measured():
    text = io.StringIO()
    lines = [Summary("fp32", 0.98765, 0.95, 40.04, 25.0), Summary("int8", None, None, None, None)]
    print_table(lines, Console(file=text, width=80))
    fp32, int8 = (line for line in text.getvalue().splitlines() if "FP32" in line or "INT8" in line)
    assert [cell.strip() for cell in fp32.strip("│ ").split("│")] == ["FP32", "0.988", "0.950", "40.0", "25.0"]
    assert int8.count("-") == 4
