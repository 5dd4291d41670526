import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.demo import demo, pace
from benchmarks.demo.demo import DemoScale, Summary, has_weights, plan_demo, print_table, run_demo, scale_to_machine
from benchmarks.demo.pace import Pace
from benchmarks.demo.steps import JOURNAL, StepResult, StepState
from edge_runtime.errors import DataError, UsageError

OUT, OWN = Path("demo"), Path("mine")


def commands(data: Path | None = None, *, online: bool = False) -> dict[str, tuple[str, ...]]:
    """By program; the last command of edge-detect and python counts."""
    return {step.command[0]: step.command for step in plan_demo(OUT, data, DemoScale(), online=online)}


def option(command: tuple[str, ...], name: str) -> str:
    return command[command.index(name) + 1]


def test_drawn_faces_train_a_demo_from_scratch():
    train = commands()["train-detector"]
    assert (option(train, "--preset"), option(train, "--arch")) == ("demo", "resnet50")
    assert "--demo" in train
    assert "--weights" not in train


def test_own_faces_start_from_imagenet_weights():
    train = commands(OWN, online=True)["train-detector"]
    assert option(train, "--weights") == "imagenet"
    assert "--demo" not in train
    assert "--weights" not in commands(OWN)["train-detector"]
    assert "--clip" in commands(OWN)["python"]


def test_each_step_reads_what_the_last_one_made():
    found = commands()
    assert found["prepare-faces"][1] == "demo/faces"
    assert found["evaluate-detector"][1:3] == ("demo/run/best.pth", "demo/catalog")
    assert found["export-openvino"][1] == "demo/run/best.pth"
    assert option(found["edge-benchmark"], "--model") == option(found["edge-detect"], "--model") == "demo/detector"


def test_missing_own_faces_are_refused_first(tmp_path):
    with pytest.raises(DataError, match="nowhere: not found"):
        run_demo(tmp_path / "out", tmp_path / "nowhere", DemoScale())
    assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match="your faces"):
        run_demo(tmp_path / "out", tmp_path, DemoScale())


@pytest.mark.parametrize(("command", "expected"), [("x --weights imagenet", True), ("x", False)])
def test_a_trained_demo_does_not_ask_the_network(tmp_path, monkeypatch, command, expected):
    monkeypatch.setattr(demo, "is_online", lambda: pytest.fail("asked the network"))
    (tmp_path / JOURNAL).write_text(json.dumps({demo.TRAIN: {"command": command}}))
    assert has_weights(tmp_path) is expected


@pytest.mark.parametrize("damage", [None, "", "{", "[]", '{"epochs": "many"}'])
def test_a_demo_that_goes_on_keeps_its_epochs(tmp_path, monkeypatch, damage):
    monkeypatch.setattr(pace, "choose_epochs", lambda *_: Pace(20.4, 9, 18))
    found = scale_to_machine(tmp_path / "demo", DemoScale())
    assert found.epochs == 9
    if damage is None:
        monkeypatch.setattr(pace, "choose_epochs", lambda *_: pytest.fail("measured again"))
    else:
        (tmp_path / "demo" / "pace.json").write_text(damage)
    assert scale_to_machine(tmp_path / "demo", DemoScale()) == found


@pytest.mark.parametrize(("problem", "code"), [("", 0), ("export-openvino: INT8 was refused", 1)])
def test_exit_code_shows_problems(monkeypatch, problem, code):
    results = [StepResult("Export", StepState.SHORT if problem else StepState.DONE, 1.0, problem)]
    monkeypatch.setattr(demo, "run_demo", lambda *_: results)
    assert demo.demo(OUT) == code


def test_table_shows_what_was_not_measured():
    text = io.StringIO()
    lines = [Summary("fp32", 0.98765, 0.95, 40.04, 25.0), Summary("int8", None, None, None, None)]
    print_table(lines, Console(file=text, width=80))
    fp32, int8 = (line for line in text.getvalue().splitlines() if "FP32" in line or "INT8" in line)
    assert [cell.strip() for cell in fp32.strip("│ ").split("│")] == ["FP32", "0.988", "0.950", "40.0", "25.0"]
    assert int8.count("-") == 4
