"""The command: what a user types and reads."""

import resource
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from board_setup.signatures import BUNDLE_SIGNATURE, SigningError, check_bundle
from board_setup.workstation.sign import make_key
from edge_runtime.errors import UsageError
from edge_runtime.model.bundle import MANIFEST, Bundle
from edge_runtime.model.contract import Fit, ModelContract, Precision
from export import cli, export
from export.bundle.files import write_manifest
from export.bundle.sign import sign_folder
from export.faces import DRAWN
from export.int8 import search
from export.int8.gate import Criterion, judge_candidate
from train.models.backbones import Backbone
from train.models.checkpoint import save_checkpoint

Run = Callable[..., tuple[int, str, str]]
BARE = ("--arch", "tiny", "--labels", "real,fake", "--input", "article")


@pytest.fixture
def run(tiny_backbone: Backbone, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command in this process; returns exit code, standard output and standard error."""

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


def error_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, text
    assert "Traceback" not in text
    return lines[0]


def test_a_bare_state_dict_is_exported_uncalibrated(run: Run, bare: Path, tmp_path: Path) -> None:
    served = tmp_path / "served"
    code, out, err = run(
        bare, *BARE, "--out", tmp_path / "b", "--only", "fp32", "--version", "1.4.0", "--name", "door", "--ovms", served
    )
    assert code == 0
    # Only steps and notes: the libraries' warnings stay off the terminal.
    assert all(" … " in line or "ncalibrated" in line or "face detector" in line for line in err.splitlines()), err
    assert "ncalibrated" in err
    assert "fp32" in out
    bundle = Bundle.open(tmp_path / "b")
    assert bundle.precisions == (Precision.FP32,)
    assert not (bundle.path / "onnx").exists()
    assert bundle.contract.calibrations == {}
    assert bundle.contract.pixels.fit is Fit.STRETCH
    assert (bundle.contract.version, bundle.manifest.name) == ("1.4.0", "door")
    certificate = bundle.manifest.parity["certificate"]
    assert certificate["faces"] == DRAWN
    assert certificate["stages"][2]["from_pytorch"]["max_logit"] < 1e-3
    assert (served / "config.json").is_file()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs openssh-client")
def test_the_bundle_is_signed_before_it_is_put_in_place(
    run: Run, bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = error_line(run(bare, *BARE, "--out", tmp_path / "b", "--sign", tmp_path / "lab")[2])
    assert "lab: no such key; make one with: setup-board keygen" in missing
    assert not (tmp_path / "b").exists()
    make_key(str(tmp_path / "lab"), passphrase=False)
    words = (bare, *BARE, "--out", tmp_path / "b", "--only", "fp32", "--sign", tmp_path / "lab")
    code, _, err = run(*words)
    assert (code, f"Signed with {tmp_path}/lab, valid until " in err) == (0, True)
    manifest, signature = ((tmp_path / "b" / name).read_bytes() for name in (MANIFEST, BUNDLE_SIGNATURE))
    assert check_bundle(manifest, signature, str(tmp_path), "b").signer == "lab"

    def without_key(*arguments: object) -> None:
        (tmp_path / "lab").unlink()
        write_manifest(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(export, "write_manifest", without_key)
    assert "lab: no such key" in error_line(run(*words, "--replace")[2])
    assert (tmp_path / "b" / MANIFEST).read_bytes() == manifest
    assert (tmp_path / "b" / BUNDLE_SIGNATURE).read_bytes() == signature


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs openssh-client")
def test_a_full_temporary_folder_is_one_line(
    run: Run, bare: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_key(str(tmp_path / "lab"), passphrase=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    line = error_line(run(bare, *BARE, "--out", tmp_path / "b", "--sign", tmp_path / "lab")[2])
    assert line.startswith(f"error: --sign {tmp_path}/lab: can't sign (")


@pytest.mark.parametrize(("typed", "wrong"), [(True, 2), (True, 3), (False, 1)])
def test_a_passphrase_may_be_typed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: bool, wrong: int
) -> None:
    """Without a terminal nobody can."""
    answers: list[int | None] = [None] * wrong + [0]

    def sign_bundle(folder: str, key: str) -> int:
        expires = answers.pop(0)
        if expires is None:
            raise SigningError(f"{key}: can't sign (incorrect passphrase)")
        return expires

    monkeypatch.setattr("board_setup.signatures.sign_bundle", sign_bundle)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: typed))
    if wrong == 2:
        assert sign_folder(tmp_path, "lab") == "1970-01-01"
    else:
        with pytest.raises(UsageError, match="incorrect passphrase"):
            sign_folder(tmp_path, "lab")
    assert len(answers) == (0 if wrong == 2 else 1)


@pytest.mark.slow
def test_unreadable_pictures_are_named_and_left_out(
    run: Run, tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(tiny_data, tmp_path / "data")
    (data / "real" / "text.jpg").write_text("no picture")
    (data / "fake" / "link.png").symlink_to("nowhere")
    options = ("--calibration", data, "--only", "fp32", "--faces", 20)
    code, _, err = run(tiny_checkpoint, *options, "--out", tmp_path / "b")
    assert code == 1
    assert f"left out: {data}/real/text.jpg: " in err
    assert f"left out: {data}/fake/link.png: " in err
    assert "Traceback" not in err
    bundle = Bundle.open(tmp_path / "b")
    assert bundle.precisions == (Precision.FP32,)
    report = (bundle.path / "report.md").read_text(encoding="utf-8")
    assert "2 pictures can't be used" in report
    assert str(data) not in report


@pytest.mark.slow
def test_without_an_accepted_int8_the_rest_is_kept(
    run: Run, tiny_checkpoint: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A tiny network may lose nothing: claim that it does.
    monkeypatch.setattr(
        search, "judge_candidate", lambda *given, **more: judge_candidate(*given, **more).refuse(Criterion.CHANGED)
    )
    options = ("--calibration", tiny_data, "--faces", 40, "--candidates", "performance-enable", "--no-accuracy-control")
    code, _, err = run(tiny_checkpoint, *options, "--out", tmp_path / "b")
    assert code == 1
    line = error_line(err)
    assert "no INT8 network stays within the limits" in line
    assert any(layer in line for layer in ("body.0", "body.3", "body.6"))
    bundle = Bundle.open(tmp_path / "b")
    bundle.check()
    assert bundle.precisions == (Precision.FP32, Precision.FP16)
    assert not (bundle.path / "int8").exists()
    assert "most sensitive layers" in (bundle.path / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("missing.pth",), "missing.pth: not found"),
        (("text.pth",), "text.pth: not a PyTorch checkpoint, or damaged; give the .pth"),
        (("zip.pth",), "zip.pth: not a PyTorch checkpoint, or damaged; give the .pth"),
        (("zip.pth", *BARE), "zip.pth: not a PyTorch checkpoint, or damaged; give the .pth"),
        (("half.pth",), "half.pth: not a PyTorch checkpoint, or damaged; give the .pth"),
        (("liar.pth",), "shufflenet_v2_x1_0"),
        (("diverged.pth",), "fc.weight"),
        (("bare.pth",), "--arch"),
        (("bare.pth", "--arch", "tiny"), "--arch, --labels and --input together"),
        (("bare.pth", "--arch", "shufflenet_v2_x1_0", *BARE[2:]), "shufflenet_v2_x1_0"),
        (("bare.pth", "--arch", "resnet51", *BARE[2:]), "resnet51"),
        (("bare.pth", *BARE[:3], "cat,dog", *BARE[4:]), "cat,dog"),
        (("nan.pth", *BARE), "fc.weight"),
        (("bare.pth", *BARE, "--only", "fp64"), "--only fp64"),
        (("bare.pth", *BARE, "--only", "onnx"), "--only onnx"),
        (("bare.pth", *BARE, "--name", "a/b"), "--name 'a/b'"),
        (("bare.pth", *BARE, "--candidates", "best"), "--candidates best"),
        (("bare.pth", *BARE, "--calibration", "empty"), "empty"),
        (("bare.pth", *BARE, "--calibration", "one_class"), "one_class"),
        (("bare.pth", *BARE, "--calibration", "broken"), "broken"),
        (("bare.pth", *BARE, "--calibration", "nowhere"), "nowhere"),
        (("bare.pth", *BARE, "--out", "photos"), "photos: "),
        (("bare.pth", *BARE, "--out", "photos", "--replace"), "photos: "),
        (("bare.pth", *BARE, "--out", "text.pth"), "text.pth: "),
        (("bare.pth", *BARE, "--out", "text.pth/b"), "text.pth can't be written"),
        (("bare.pth", *BARE, "--out", "~nobody9/b"), "no such user"),
        (("bare.pth", *BARE, "--out", 300 * "b"), "choose another --out"),
        (("bare.pth", *BARE, "--out", "."), ".: is not empty and not a bundle; choose another --out"),
        (("bare.pth", *BARE, "--out", "b\udcff"), "not UTF-8"),
        (("bare.pth", *BARE, "--out", "bundle"), "--replace"),
        (("bare.pth", *BARE, "--ovms", "photos"), "photos: is not empty and not a bundle; choose another --ovms"),
        (("bare.pth", *BARE, "--licence", "cc0-1.0"), "--licence needs --push"),
        (("bare.pth", *BARE, "--ovms", "detector/served"), "--ovms detector/served: overlaps"),
        pytest.param(("bare.pth", *BARE, "--face-model", "gone.tflite"), "gone.tflite", marks=pytest.mark.slow),
    ],
)
def test_bad_input_gets_one_line_and_leaves_nothing(
    run: Run,
    tiny_model: nn.Module,
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    make_bad_inputs(tiny_model, tiny_data)
    before = sorted(tmp_path.rglob("*"))
    code, _, err = run(*arguments)
    assert code == 2
    assert words in error_line(err)
    assert sorted(tmp_path.rglob("*")) == before


def make_bad_inputs(model: nn.Module, data: Path) -> None:
    Path("text.pth").write_text("not a checkpoint")
    with zipfile.ZipFile("zip.pth", "w") as archive:
        archive.writestr("letter.txt", "no checkpoint either")
    torch.save(model.state_dict(), "bare.pth")
    Path("half.pth").write_bytes(Path("bare.pth").read_bytes()[:5000])
    save_checkpoint(Path("liar.pth"), model, ModelContract("shufflenet_v2_x1_0"))
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


@pytest.mark.slow
@pytest.mark.parametrize("room", [2_000, 24_000, 60_000])
def test_a_full_disk_gets_one_line_and_leaves_nothing(run: Run, bare: Path, tmp_path: Path, room: int) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # No file may grow beyond the limit: a write that would fails, as on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        code, _, err = run(bare, *BARE, "--only", "fp32", "--out", tmp_path / "out" / "b")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == 2
    assert "out/b: can't be written" in error_line(err)
    assert list((tmp_path / "out").iterdir()) == []
