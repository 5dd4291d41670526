"""The command: what a user types and reads."""

import resource
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edge_runtime.model.bundle import Bundle
from edge_runtime.model.contract import Fit, ModelContract, Precision
from export import cli
from export import export as pipeline
from train.models.backbones import Backbone
from train.models.checkpoint import save_checkpoint

Run = Callable[..., tuple[int, str, str]]
BARE = ("--arch", "tiny", "--labels", "real,fake", "--input", "article")


@pytest.fixture
def run(tiny_backbone: Backbone, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command here; returns exit code, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["export-openvino", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


@pytest.fixture
def bare(tiny_model: nn.Module, tmp_path: Path) -> Path:
    """A bare state_dict, as the first article's code saves one."""
    path = tmp_path / "resnet50_model.pth"
    torch.save(tiny_model.state_dict(), path)
    return path


def one_line(error: str) -> str:
    lines = [line for line in error.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, error
    assert "Traceback" not in error
    return lines[0]


def test_the_articles_file_is_exported_uncalibrated_and_turned_round_by_its_labels(
    run: Run, bare: Path, tmp_path: Path
) -> None:
    code, out, err = run(bare, *BARE, "--out", tmp_path / "straight", "--version", "1.4.0", "--name", "door")
    assert code == 0
    # Nothing but steps and notes: the libraries' warnings stay off the terminal.
    assert all(" … " in line or "ncalibrated" in line or "face detector" in line for line in err.splitlines()), err
    assert "ncalibrated" in err
    assert "fp32" in out
    straight = Bundle.open(tmp_path / "straight")
    assert straight.precisions == (Precision.FP32, Precision.FP16)
    assert straight.contract.calibrations == {}
    assert straight.contract.pixels.fit is Fit.STRETCH
    assert (straight.contract.version, straight.manifest.name) == ("1.4.0", "door")
    assert straight.manifest.parity["certificate"]["stages"][2]["from_pytorch"]["max_logit"] < 1e-3

    turned = [*BARE[:3], "fake,real", *BARE[4:]]
    assert run(bare, *turned, "--out", tmp_path / "turned", "--only", "fp32")[0] == 0
    answers = {name: golden_answers(tmp_path / name) for name in ("straight", "turned")}
    # Each has its own golden pictures, ranked by fake: what was the fakest is the realest now.
    np.testing.assert_allclose(answers["turned"][0], answers["straight"][-1][::-1], atol=1e-3)


def golden_answers(folder: Path) -> np.ndarray:
    from edge_runtime.model.golden import Golden

    return np.array(Golden.of(Bundle.open(folder)).logits["fp32"]["native"])


def test_only_what_was_asked_for_is_inside(run: Run, tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path) -> None:
    options = ("--calibration", tiny_data, "--only", "int8", "--faces", 40, "--candidates", "performance-enable")
    code, out, _ = run(tiny_checkpoint, *options, "--out", tmp_path / "b", "--ovms", tmp_path / "served")
    assert code == 0
    assert "PERFORMANCE ENABLE" in out
    bundle = Bundle.open(tmp_path / "b")
    assert bundle.precisions == (Precision.INT8,)
    assert not (bundle.path / "onnx").exists()
    assert (tmp_path / "served" / "config.json").is_file()


def test_pictures_that_can_not_be_read_are_named_the_bundle_is_made_without_them_and_the_exit_code_says_so(
    run: Run, tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(tiny_data, tmp_path / "data")
    (data / "real" / "text.jpg").write_text("no picture")
    (data / "fake" / "link.png").symlink_to("nowhere")
    options = ("--calibration", data, "--only", "fp32", "--faces", 20)
    code, _, err = run(tiny_checkpoint, *options, "--out", tmp_path / "b")
    assert code == 1
    assert f"left out: {data}/real/text.jpg: not a picture that can be read\n" in err
    assert f"left out: {data}/fake/link.png: not found (a broken link)\n" in err
    assert "Traceback" not in err
    bundle = Bundle.open(tmp_path / "b")
    assert bundle.precisions == (Precision.FP32,)
    report = (bundle.path / "report.md").read_text(encoding="utf-8")
    assert "2 pictures can't be used and are left out" in report
    assert str(data) not in report


def test_where_no_int8_holds_the_rest_is_kept_and_the_layers_are_named(
    run: Run, tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path
) -> None:
    options = ("--calibration", tiny_data, "--faces", 40, "--candidates", "performance-enable", "--max-changed", 0)
    impossible = (*options, "--max-auc-loss", 0, "--max-board-score", 0, "--no-accuracy-control")
    patch = pytest.MonkeyPatch()
    with patch.context() as patched:
        # A tiny network may well lose nothing: claim that it does.
        patched.setattr(pipeline, "judge_candidate", failing(pipeline.judge_candidate))
        code, _, err = run(tiny_checkpoint, *impossible, "--out", tmp_path / "b")
    assert code == 1
    line = one_line(err)
    assert "no INT8 network holds on the board" in line
    assert "hurt most" in line
    assert "body.0" in line or "body.3" in line or "body.6" in line or "fc" in line
    bundle = Bundle.open(tmp_path / "b")
    bundle.check()
    assert bundle.precisions == (Precision.FP32, Precision.FP16)
    assert not (bundle.path / "int8").exists()
    assert "hurt most" in (bundle.path / "report.md").read_text(encoding="utf-8")


def failing(judge: Callable) -> Callable:
    from dataclasses import replace

    return lambda *args, **options: replace(judge(*args, **options), failed=("changed decisions 0.5 is over 0.02",))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("missing.pth",), "missing.pth: not found"),
        (("text.pth",), "text.pth: no checkpoint"),
        (("zip.pth",), "zip.pth: broken or no checkpoint"),
        (("zip.pth", *BARE), "zip.pth: broken or no checkpoint"),
        (("half.pth",), "half.pth: broken or no checkpoint"),
        (("liar.pth",), "not the weights of resnet18"),
        (("diverged.pth",), "no number (fc.weight is the first)"),
        (("bare.pth",), "--arch"),
        (("bare.pth", "--arch", "tiny"), "needs --arch, --labels and --input together"),
        (("bare.pth", "--arch", "resnet18", *BARE[2:]), "not the weights of resnet18"),
        (("bare.pth", "--arch", "resnet51", *BARE[2:]), "resnet51"),
        (("bare.pth", *BARE[:3], "cat,dog", *BARE[4:]), "cat,dog"),
        (("nan.pth", *BARE), "no number (fc.weight is the first)"),
        (("bare.pth", *BARE, "--only", "fp64"), "--only fp64"),
        (("bare.pth", *BARE, "--only", "onnx"), "--only onnx"),
        (("bare.pth", *BARE, "--name", "a/b"), "--name 'a/b'"),
        (("bare.pth", *BARE, "--candidates", "best"), "--candidates best"),
        (("bare.pth", *BARE, "--face-model", "gone.tflite"), "gone.tflite"),
        (("bare.pth", *BARE, "--calibration", "empty"), "empty"),
        (("bare.pth", *BARE, "--calibration", "one_class"), "one_class"),
        (("bare.pth", *BARE, "--calibration", "broken"), "broken"),
        (("bare.pth", *BARE, "--calibration", "nowhere"), "nowhere"),
        (("bare.pth", *BARE, "--out", "photos"), "is no bundle"),
        (("bare.pth", *BARE, "--out", "bundle"), "add --replace"),
        (("bare.pth", *BARE, "--ovms", "photos"), "--ovms photos: is there already"),
    ],
)
def test_bad_input_gets_one_clear_line_and_leaves_nothing(
    run: Run,
    tiny_model: nn.Module,
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    make_bad_things(tiny_model, tiny_data)
    before = sorted(tmp_path.rglob("*"))
    code, _, err = run(*arguments)
    assert code == 2
    assert words in one_line(err)
    assert sorted(tmp_path.rglob("*")) == before


def make_bad_things(model: nn.Module, data: Path) -> None:
    Path("text.pth").write_text("not a checkpoint")
    with zipfile.ZipFile("zip.pth", "w") as archive:
        archive.writestr("letter.txt", "no checkpoint either")
    torch.save(model.state_dict(), "bare.pth")
    Path("half.pth").write_bytes(Path("bare.pth").read_bytes()[:5000])
    save_checkpoint(Path("liar.pth"), model, ModelContract("resnet18"))
    state = {key: value.clone() for key, value in model.state_dict().items()}
    state["fc.weight"][0, 0] = float("nan")
    torch.save(state, "nan.pth")
    values = torch.load("liar.pth", weights_only=True)
    torch.save({**values, "contract": ModelContract("tiny", input_size=32).to_dict(), "model": state}, "diverged.pth")
    for folder in ("empty/real", "empty/fake", "broken/real", "broken/fake", "one_class", "photos", "bundle"):
        Path(folder).mkdir(parents=True)
    Path("one_class/real").symlink_to(data / "real")
    for name in ("real", "fake"):
        Path(f"broken/{name}/1.jpg").write_text("no picture")
    Path("photos/holiday.jpg").touch()
    Path("bundle/model.json").write_text("{}")


@pytest.mark.parametrize("room", [2_000, 24_000, 60_000])
def test_a_full_disk_gets_one_clear_line_and_leaves_nothing(run: Run, bare: Path, tmp_path: Path, room: int) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # No file may grow beyond the limit: each write that would fails, as on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        code, _, err = run(bare, *BARE, "--only", "fp32", "--out", tmp_path / "out" / "b")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == 2
    assert "out/b: can't be written" in one_line(err)
    assert list((tmp_path / "out").iterdir()) == []
