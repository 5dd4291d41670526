import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.demo import demo
from benchmarks.demo import pace as demo_pace
from benchmarks.demo.demo import Line, Scale, plan_demo, run_demo, show
from benchmarks.demo.pace import Pace
from benchmarks.demo.steps import JOURNAL
from edge_runtime.errors import DataError

OUT, OWN = Path("demo"), Path("mine")


def commands(data: Path | None = None, *, online: bool = False) -> dict[str, tuple[str, ...]]:
    """By program; edge-detect and python come several times, the last counts."""
    return {step.command[0]: step.command for step in plan_demo(OUT, data, Scale(), online=online)}


def test_drawn_faces_are_learnt_from_scratch_and_called_a_demo():
    train = commands()["train-detector"]
    assert train[train.index("--preset") + 1] == "demo"
    assert "--demo" in train
    assert train[train.index("--arch") + 1] == "resnet50"


def test_own_faces_are_no_demo_and_start_from_imagenet_weights_when_online():
    train = commands(OWN, online=True)["train-detector"]
    assert train[train.index("--weights") + 1] == "imagenet"
    assert "--demo" not in train
    assert "--weights" not in commands(OWN)["train-detector"]


def test_own_faces_are_not_drawn_and_their_video_shows_held_out_ones():
    titles = [step.title for step in plan_demo(OUT, OWN, Scale(), online=False)]
    assert not [title for title in titles if title.startswith("Draw")]
    assert "--clip" in commands(OWN)["python"]


def test_each_stage_reads_what_the_one_before_it_made():
    found = commands()
    assert found["prepare-faces"][1] == "demo/faces"
    assert found["evaluate-detector"][1:3] == ("demo/run/best.pth", "demo/catalog")
    assert found["export-openvino"][1] == "demo/run/best.pth"
    assert found["edge-benchmark"][found["edge-benchmark"].index("--model") + 1] == "demo/detector"
    assert found["edge-detect"][found["edge-detect"].index("--model") + 1] == "demo/detector"


def test_a_failing_int8_gate_is_told_and_does_not_end_the_demo():
    export = next(step for step in plan_demo(OUT, None, Scale(), online=False) if step.command[0] == "export-openvino")
    assert "goes on with what the bundle has" in export.if_short


def test_missing_own_faces_are_an_error_before_anything_is_made(tmp_path):
    with pytest.raises(DataError, match="nowhere: not found"):
        run_demo(tmp_path / "out", tmp_path / "nowhere", Scale())
    assert not (tmp_path / "out").exists()


def test_weights_once_had_are_not_asked_for_again(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "is_online", lambda: pytest.fail("asked the network"))
    (tmp_path / JOURNAL).write_text(json.dumps({demo.TRAIN: {"command": "train-detector x --weights imagenet"}}))
    assert demo._has_weights(tmp_path)
    (tmp_path / JOURNAL).write_text(json.dumps({demo.TRAIN: {"command": "train-detector x"}}))
    assert not demo._has_weights(tmp_path)


def test_a_slow_machine_is_given_fewer_epochs_and_the_same_ones_when_it_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo_pace, "choose_epochs", lambda *_: Pace(20.4, 9, 18))
    found = demo._paced(tmp_path / "demo", Scale())
    monkeypatch.setattr(demo_pace, "choose_epochs", lambda *_: pytest.fail("measured again"))
    assert demo._paced(tmp_path / "demo", Scale()) == found
    train = next(step for step in plan_demo(OUT, None, found, online=False) if step.title == demo.TRAIN)
    assert train.command[-2:] == ("--epochs", "9")
    assert capsys.readouterr().out == "This machine learns 20 pictures a second: 9 of 18 epochs.\n"


def test_the_table_says_what_was_not_measured():
    text = io.StringIO()
    show([Line("fp32", 0.98765, 0.95, 40.04, 25.0), Line("int8", None, None, None, None)], Console(file=text, width=80))
    fp32, int8 = (line for line in text.getvalue().splitlines() if "FP32" in line or "INT8" in line)
    assert [cell.strip() for cell in fp32.strip("│ ").split("│")] == ["FP32", "0.988", "0.950", "40.0", "25.0 ms"]
    assert int8.count("-") == 4
