import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edge_runtime.errors import CheckpointError, DataError, UsageError
from train import cli
from train.commands import leave_one_out as module
from train.commands.leave_one_out import LeaveOneOutOptions, left_out_faces, parse_groups, table
from train.commands.leave_one_out import leave_one_out as leave
from train.data.build import load_data
from train.data.catalog import Catalog
from train.evaluation.evaluation import judge_faces, open_subject
from train.evaluation.metrics import auc as auc_of
from train.models.checkpoint import load_checkpoint

QUICK = ("--arch", "shufflenet_v2_x1_0", "--preset", "quick", "--epochs", "1", "--batch", "8", "--workers", "0")
Options = LeaveOneOutOptions


@pytest.fixture
def multi(tmp_path, draw):
    """Two real sources and two generators of 40 faces each."""
    for number, place in enumerate(("real/ffhq", "real/dfdc", "fake/sdxl", "fake/swap")):
        folder = tmp_path / "multi" / place
        folder.mkdir(parents=True)
        for index in range(40):
            draw(1000 * number + index, (48, 48), fake=number > 1).save(folder / f"{index}.png")
    return tmp_path / "multi"


@pytest.fixture(autouse=True)
def _own_state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def test_left_out_faces_meet_test_faces_of_the_other_class(multi):
    catalog = load_data(multi)
    faces = left_out_faces(catalog, ["swap"], {})
    assert {face.split for face in faces} == {"test"}
    swaps = {face.path for face in catalog.records if face.origin == "swap"}
    assert {face.path for face in faces if face.label} == swaps
    reals = {face.path for face in catalog.split("test") if face.label == 0}
    assert {face.path for face in faces if not face.label} == reals
    pairs = {"swap": frozenset({"dfdc"})}
    paired = left_out_faces(catalog, ["swap"], pairs)
    assert {face.source for face in paired if not face.label} == {"dfdc"}
    assert {face.origin for face in left_out_faces(catalog, ["dfdc"], pairs)} == {"dfdc", "swap"}
    with pytest.raises(DataError, match="no test faces of the other class"):
        left_out_faces(load_data(multi, split="80/20"), ["swap"], {})


def test_twins_of_training_faces_are_not_judged(multi, draw):
    for index in range(10):
        draw(500 + index, (96, 96)).save(multi / "real" / "ffhq" / f"twin{index}.jpg", quality=95)
        draw(500 + index, (96, 96)).save(multi / "real" / "dfdc" / f"twin{index}.jpg", quality=60)
    catalog = load_data(multi)
    trained = {face.path.name for face in catalog.records if face.source == "ffhq" and face.split != "test"}
    judged = {face.path.name for face in left_out_faces(catalog, ["dfdc"], {}) if face.source == "dfdc"}
    twins = {f"twin{index}.jpg" for index in range(10)}
    assert judged & twins == twins - trained != twins


def test_groups_are_names_and_members():
    assert parse_groups(["gan=progan, stylegan3", "swap=dfdc_swap"]) == {
        "gan": ("progan", "stylegan3"),
        "swap": ("dfdc_swap",),
    }
    for texts in (["gan"], ["=a"], ["gan="], ["a/b=c"], ["..=c"], ["a=b", "a=c"]):
        with pytest.raises(UsageError, match="--group"):
            parse_groups(texts)


@pytest.mark.slow
def test_the_table_is_made_once_and_resumed(multi, tmp_path, monkeypatch, capfd):
    out, words = tmp_path / "loo", [str(multi), "--group", "swap=swap", "--group", "phones=dfdc", "--bootstrap", "10"]
    words += ["--pairs", "swap:dfdc", "--out", str(tmp_path / "loo"), "--", *QUICK, "--no-pictures"]
    monkeypatch.setattr(sys, "argv", ["leave-one-out", *words])
    with pytest.raises(SystemExit) as ended:
        cli.leave_one_out_main()
    assert ended.value.code == 0
    printed = capfd.readouterr().out
    assert "training without swap" in printed
    found = json.loads((out / "leave-one-out.json").read_text())
    assert [(row["name"], row["left_out"]) for row in found["rows"]] == [("swap", ["swap"]), ("phones", ["dfdc"])]
    for row in found["rows"]:
        evaluation = json.loads((out / row["name"] / "evaluation.json").read_text())
        assert row["auc"] == evaluation["figures"]["auc"]
        assert row["coverage"] == evaluation["decided"]["coverage"]
    worst = min(row["auc"]["value"] for row in found["rows"])
    assert found["worst"]["group"]["auc"]["value"] == worst
    trained = Catalog.read(load_checkpoint(out / "swap" / "run" / "best.pth").catalog)
    assert {face.origin for face in trained.records} == {"ffhq", "dfdc", "sdxl"}
    assert "| swap | swap |" in (out / "leave-one-out.md").read_text()
    subject, known = open_subject(out / "swap" / "run" / "best.pth"), trained.split("test")
    assert {face.label for face in known} == {0, 1}
    expected = auc_of([face.label for face in known], judge_faces(subject, known).scores)
    assert found["rows"][0]["known_auc"]["value"] == pytest.approx(expected)
    older = {"rows": [{key: value for key, value in row.items() if key != "known_auc"} for row in found["rows"]]}
    (out / "leave-one-out.json").write_text(json.dumps(older))
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("trained again"))
    with pytest.raises(SystemExit) as ended:
        cli.leave_one_out_main()
    assert ended.value.code == 0
    assert json.loads((out / "leave-one-out.json").read_text()) == found
    for options in (Options({"swap": ["sdxl"]}, training=[*QUICK, "--no-pictures"]), Options({"swap": ["swap"]})):
        with pytest.raises(UsageError, match="holds a table with another"):
            leave([multi], out, options)


def test_a_failed_training_is_named(multi, tmp_path, capfd):
    with pytest.raises(CheckpointError, match=r"swap/run: the training ended with 2"):
        leave([multi], tmp_path / "loo", Options({"swap": ["swap"]}, training=["--arch", "resnet5"]))
    assert "--arch resnet5: unknown backbone" in capfd.readouterr().err
    for options, message in (
        (Options({"gan": ["gan"]}), "--leave-out gan: not a source or generator"),
        (Options({"swap": ["swap"]}, pairs=["swap:dfcd"]), "--pairs: dfcd is not a source or generator"),
    ):
        with pytest.raises(UsageError, match=message):
            leave([multi], tmp_path / "other", options)
    assert not (tmp_path / "other").exists()


def test_a_stopped_training_stops_the_table(multi, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TRAIN", "import sys; sys.exit(130)")
    with pytest.raises(KeyboardInterrupt):
        leave([multi], tmp_path / "loo", Options({"swap": ["swap"]}))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_every_origin_is_left_out_by_default(multi, tmp_path, monkeypatch):
    def judge(best, faces, pairs, bootstrap):
        figure = {"value": 0.0, "low": 0.0, "high": 0.1, "of": 29}
        return {"real": 1, "fake": 1, **dict.fromkeys(module.ORIGIN_FIGURES, figure)}

    monkeypatch.setattr(module, "_train", lambda catalog, run, names, training: Path(run) / "best.pth")
    monkeypatch.setattr(module, "_judge", judge)
    monkeypatch.setattr(module, "_known_auc", lambda best, faces, bootstrap: {"value": 0.0, "low": 0.0, "high": 0.1})
    rows = leave([multi], tmp_path / "loo", Options({}))
    assert leave([multi], tmp_path / "loo", Options({})) == rows
    assert [row["name"] for row in rows] == ["dfdc", "ffhq", "sdxl", "swap"]
    assert table(rows).rows[0][4] == "0 of 29 (at most 10 %)"
    for text in ("{", "[1]"):
        (tmp_path / "loo" / "plan.json").write_text(text)
        with pytest.raises(UsageError, match=r"plan\.json is damaged"):
            leave([multi], tmp_path / "loo", Options({}))
