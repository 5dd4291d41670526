"""Packing: what goes into a kit, and what is refused before anything is downloaded."""

import hashlib
import json
import resource
import subprocess
import tarfile
from pathlib import Path

import pytest

from board_setup import cli
from board_setup.board import kit as kits
from board_setup.board.kit import KitError
from board_setup.workstation import pack, wheels

ROOT = Path(__file__).resolve().parents[3]
OWN_WHEEL = "deepfake_edge-0.1.0-py3-none-any.whl"


def write_bundle(
    folder: Path, precisions: tuple[str, ...] = ("fp32", "fp16", "int8"), faces: bool = True, size: int = 0
) -> Path:
    names = [*(f"{precision}/model.xml" for precision in precisions), "onnx/model.onnx", "golden/golden.json"]
    for name in [*names, *(["face/face_detection.tflite"] if faces else [])]:
        path = folder / name
        path.parent.mkdir(parents=True)
        path.write_text(name.ljust(size))
    files = {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*.*")}
    (folder / "model.json").write_text(json.dumps({"contract": {"version": "1.4.0"}, "files": files, "name": "x"}))
    return folder


@pytest.fixture
def no_downloads(monkeypatch) -> list[tuple[str, ...]]:
    """Let wheels come from nowhere; returns what pip is called with."""
    called: list[tuple[str, ...]] = []

    def build_wheel(project: str, folder: str) -> str:
        Path(folder, OWN_WHEEL).write_text("")
        return OWN_WHEEL

    monkeypatch.setattr(wheels, "build_wheel", build_wheel)
    monkeypatch.setattr(wheels, "run_pip", lambda *arguments: called.append(arguments))
    return called


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(list(arguments))
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize("faces", [True, False])
def test_packed_kit_can_be_read(tmp_path, no_downloads, capsys, faces) -> None:
    bundle, out = write_bundle(tmp_path / "detector", faces=faces), tmp_path / "kit.tar"
    assert run("pack", "--out", str(out), "--model", str(bundle), "--precision", "int8,fp16") == 0
    told = capsys.readouterr()
    kit = kits.read_kit(str(out))
    kits.unpack(str(out), str(tmp_path / "unpacked"), kit)
    assert kit.id in told.out
    assert (kit.python, kit.requirement) == ("3.10", "deepfake-edge==0.1.0")
    files = json.loads((tmp_path / "unpacked" / "bundle" / "model.json").read_text())["files"]
    assert {name.split("/")[0] for name in files} == {"int8", "fp16", "golden", *(["face"] if faces else [])}
    assert {f"bundle/{name}" for name in files} <= set(kit.files)
    assert ("--face-model" in told.err) is not faces
    assert (tmp_path / "setup-board.pyz").read_bytes() == (tmp_path / "unpacked" / "setup-board.pyz").read_bytes()


def test_without_a_bundle_the_shipped_one_is_packed(tmp_path, no_downloads, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").touch()
    options = ("pack", "--out", "kit.tar", "--project", str(tmp_path))
    assert run(*options) == 2
    assert "detector: no bundle (no model.json in it); make one with export-openvino" in capsys.readouterr().err
    write_bundle(tmp_path / "edge_runtime/detectors/faces")
    assert run(*options) == 0
    assert "1.4.0" in capsys.readouterr().out
    write_bundle(tmp_path / "detector", precisions=("fp32",))
    assert pack.choose_bundle(None, str(tmp_path)) == "detector"


def test_demonstration_model_is_named(tmp_path, no_downloads, capsys) -> None:
    bundle = write_bundle(tmp_path / "detector")
    manifest = json.loads((bundle / "model.json").read_text())
    (bundle / "model.json").write_text(json.dumps({**manifest, "contract": {"version": "0.1", "demo": True}}))
    assert run("pack", "--out", str(tmp_path / "kit.tar"), "--model", str(bundle)) == 0
    assert "demonstration model" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[" * 100_000,
        "[]",
        '{"files": {}, "contract": {"version": 1}}',
        '{"files": {"a": 1}, "contract": {"version": "1"}}',
        '{"files": {}, "contract": {"version": "1\\u001b[2J"}}',
        '{"files": {}, "contract": {"version": "../1"}}',
        '{"files": {"../../etc/passwd": ""}, "contract": {"version": "1"}}',
        '{"files": {"gone": ""}, "contract": {"version": "1"}}',
    ],
)
def test_damaged_bundle_is_one_line(tmp_path, no_downloads, capsys, text) -> None:
    (tmp_path / "model.json").write_text(text)
    assert run("pack", "--out", str(tmp_path / "kit.tar"), "--model", str(tmp_path)) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert told[:-1].isprintable()


def test_missing_precision_is_named(tmp_path) -> None:
    bundle = write_bundle(tmp_path / "detector", ("fp32",))
    with pytest.raises(KitError, match=r"has no int8, only fp32"):
        pack.take_bundle(str(bundle), str(tmp_path / "taken"), ["int8"])


def test_changed_bundle_is_refused(tmp_path) -> None:
    bundle = write_bundle(tmp_path / "detector")
    (bundle / "int8" / "model.xml").write_text("other")
    with pytest.raises(KitError, match=r"model\.xml was changed"):
        pack.take_bundle(str(bundle), str(tmp_path / "taken"), [])


@pytest.mark.parametrize(
    ("wheel", "needed"),
    [
        ("rich-15.0.0-py3-none-any.whl", None),
        ("numpy-2.4.6-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl", (2, 27)),
        ("pydantic_core-2.50-cp311-cp311-manylinux2014_x86_64.manylinux_2_17_x86_64.whl", (2, 17)),
        ("new-1.0-cp311-cp311-manylinux_2_34_x86_64.whl", (2, 34)),
    ],
)
def test_wheel_name_gives_the_c_library(wheel, needed) -> None:
    assert wheels.glibc_needed(wheel) == needed


@pytest.mark.parametrize("wheel", ["numpy-2.4.6-cp311-cp311-manylinux_2_28_aarch64.whl", "numpy.whl"])
def test_other_platform_is_refused(wheel) -> None:
    with pytest.raises(KitError, match=wheel):
        wheels.glibc_needed(wheel)


def test_newer_c_library_is_refused(tmp_path, no_downloads, monkeypatch) -> None:
    name = "new-1.0-cp310-cp310-manylinux_2_34_x86_64.whl"
    monkeypatch.setattr(wheels, "run_pip", lambda *arguments: (tmp_path / "wheels" / name).write_text(""))
    with pytest.raises(KitError, match=r"needs glibc 2\.34, the board has 2\.31"):
        wheels.gather_wheels(str(tmp_path / "wheels"), str(tmp_path), "3.10", "2.31")


@pytest.mark.parametrize(
    ("extras", "chosen"),
    [([], ""), (["web"], "[web]"), (["review"], "[review]"), (["web", "benchmarks", "web"], "[benchmarks,web]")],
)
def test_extras_are_downloaded_and_required(tmp_path, no_downloads, extras, chosen) -> None:
    folder = str(tmp_path / "wheels")
    requirement = wheels.gather_wheels(folder, str(tmp_path), "3.10", "2.31", extras)
    assert requirement == f"deepfake-edge{chosen}==0.1.0"
    assert no_downloads[0][-2:] == (f"{folder}/{OWN_WHEEL}{chosen}", "pip")


def test_extras_are_the_projects() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    assert all(f"\n{extra} = [" in project for extra in wheels.EXTRAS)


def test_constraints_are_those_of_the_boards_python() -> None:
    text = (
        "# a comment\n"
        "numpy==2.2.6 ; python_version < '3.11'\n"
        "numpy==2.4.6 ; python_version >= '3.11'\n"
        "odd==1.0 ; python_version == '3.10' and python_version < '3.13'\n"
        "rich==15.0.0\n"
    )
    assert wheels.constraints_for(text, "3.10").split() == ["numpy==2.2.6", "odd==1.0", "rich==15.0.0"]
    assert wheels.constraints_for(text, "3.12").split() == ["numpy==2.4.6", "rich==15.0.0"]
    with pytest.raises(KitError, match="is not a requirement"):
        wheels.constraints_for("numpy = 1", "3.10")
    assert "openvino==" in wheels.constraints_for((ROOT / "constraints.txt").read_text(), "3.10")


def test_standalone_python_must_have_the_version(tmp_path) -> None:
    archive = tmp_path / "cpython.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("python/bin/python3.12"))
    (tmp_path / "kit").mkdir()
    assert pack.take_python(str(archive), str(tmp_path / "kit"), "3.12") == "python/cpython.tar.gz"
    with pytest.raises(KitError, match=r"has no python/bin/python3\.11"):
        pack.take_python(str(archive), str(tmp_path / "kit"), "3.11")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "missing/kit.tar"], "missing/kit.tar: the folder "),
        (["--out", "detector"], "detector: is a folder; name a file in it, such as detector/kit.tar"),
        (["--out", "kit.tar", "--glibc", "2"], "--glibc 2: give two numbers"),
        (["--out", "kit.tar", "--python-version", "new"], "--python-version new: give two numbers"),
        (["--out", "kit.tar", "--model", "none"], "none: no bundle (no model.json in it); make one"),
        (["--out", "kit.tar", "--model", "file"], "file: no bundle (no model.json in it); make one"),
        (["--out", "kit.tar", "--model", "damaged"], "damaged: its model.json is damaged; export it again"),
        (["--out", "kit.tar", "--model", "odd"], "odd: its model.json can't be read (Is a directory); make it"),
        (["--out", "kit.tar", "--extra", "all"], "argument --extra: invalid choice: 'all'"),
        (["--model", "detector"], "the following arguments are required: --out; see `setup-board pack --help`"),
        (["--out", "kit.tar", "--project", "none"], "none: not the project's source"),
        (["--out", "kit.tar", "--debs", "detector"], "detector: holds no .deb"),
    ],
)
def test_bad_option_is_one_line(tmp_path, monkeypatch, no_downloads, capsys, options, message) -> None:
    write_bundle(tmp_path / "detector")
    (tmp_path / "file").touch()
    (tmp_path / "odd/model.json").mkdir(parents=True)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged/model.json").write_text("{")
    monkeypatch.chdir(tmp_path)
    assert run("pack", *options) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: " + message)
    assert told.count("\n") == 1
    assert not list(tmp_path.glob("kit.tar*"))


def test_unprintable_file_name_is_refused(tmp_path, no_downloads, capsys) -> None:
    (tmp_path / "debs").mkdir()
    (tmp_path / "debs" / "a\x1b[2J\udcff.deb").write_text("")
    bundle = write_bundle(tmp_path / "detector")
    options = ["--out", str(tmp_path / "kit.tar"), "--model", str(bundle), "--debs", str(tmp_path / "debs")]
    assert run("pack", *options) == 2
    assert "no valid 'files'" in capsys.readouterr().err
    assert not (tmp_path / "kit.tar").exists()


def test_folders_may_have_any_name(tmp_path, no_downloads) -> None:
    (tmp_path / "debs[1]").mkdir()
    (tmp_path / "debs[1]" / "driver.deb").write_text("")
    kit, bundle = tmp_path / "kit.tar", write_bundle(tmp_path / "detector")
    assert run("pack", "--out", str(kit), "--model", str(bundle), "--debs", str(tmp_path / "debs[1]")) == 0
    assert "debs/driver.deb" in kits.read_kit(str(kit)).files


def test_full_disk_leaves_nothing(tmp_path, no_downloads, capsys) -> None:
    bundle = write_bundle(tmp_path / "detector", size=100_000)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, limits[1]))
    try:
        assert run("pack", "--out", str(tmp_path / "kit.tar"), "--model", str(bundle)) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}/kit.tar: can't be written")
    assert not list(tmp_path.glob("kit.tar*"))


def test_unwritable_kit_leaves_nothing(tmp_path) -> None:
    (tmp_path / "kit").mkdir()
    (tmp_path / "kit" / kits.MANIFEST).write_text("{}")
    (tmp_path / "out.tar").mkdir()
    with pytest.raises(KitError, match=r"out\.tar: can't be written"):
        pack.write_tar(str(tmp_path / "kit"), str(tmp_path / "out.tar"))
    assert {path.name for path in tmp_path.iterdir()} == {"kit", "out.tar"}


def test_python_3_8_runs_the_tool(tmp_path, python38) -> None:
    tool = tmp_path / "setup-board.pyz"
    pack.make_tool(str(tool))
    done = subprocess.run([python38, tool, "doctor", "--json"], cwd=tmp_path, capture_output=True, text=True)
    assert done.stderr == ""
    rows = {row["name"]: row for row in json.loads(done.stdout)["rows"]}
    assert rows["cpu"]["state"] == "ok"
    assert rows["runtime"]["mend"] == "sudo python3 setup-board.pyz install --kit kit.tar"
    offered = subprocess.run([python38, tool, "--help"], capture_output=True, text=True).stdout
    assert all(command in offered for command in ("doctor", "install", "versions", "rollback", "status"))
    assert "deploy" not in offered


def write_report(folder: Path, bundle: Path, promoted: bool = True) -> Path:
    folder.mkdir()
    digest = hashlib.sha256((bundle / "model.json").read_bytes()).hexdigest()
    report = {"promoted": promoted, "reason": "no worse on 900 faces", "new": {"sha256": digest}}
    (folder / "comparison.json").write_text(json.dumps(report))
    for suffix in ("html", "md"):
        (folder / f"comparison.{suffix}").write_text(suffix)
    return folder


@pytest.mark.parametrize("named", [True, False])
def test_report_of_the_comparison_is_packed(tmp_path, no_downloads, capsys, named) -> None:
    bundle, out = write_bundle(tmp_path / "detector"), tmp_path / "kit.tar"
    folder = write_report(tmp_path / ("elsewhere" if named else "comparison"), bundle)
    assert run("pack", "--out", str(out), "--model", str(bundle), *(["--report", str(folder)] if named else [])) == 0
    assert "compared: promoted: no worse on 900 faces" in capsys.readouterr().out
    packed = {name for name in kits.read_kit(str(out)).files if name.startswith("report/")}
    assert packed == {f"report/comparison.{suffix}" for suffix in ("html", "md", "json")}
    kits.unpack(str(out), str(tmp_path / "unpacked"), kits.read_kit(str(out)))
    assert (tmp_path / "unpacked/report/comparison.md").read_text() == "md"


def test_detector_that_was_not_promoted_is_packed_with_a_warning(tmp_path, no_downloads, capsys) -> None:
    bundle = write_bundle(tmp_path / "detector")
    write_report(tmp_path / "comparison", bundle, promoted=False)
    assert run("pack", "--out", str(tmp_path / "kit.tar"), "--model", str(bundle)) == 0
    assert "not promoted" in capsys.readouterr().err


def test_report_of_another_detector_stays_out(tmp_path, no_downloads, capsys) -> None:
    bundle = write_bundle(tmp_path / "detector")
    folder = write_report(tmp_path / "comparison", write_bundle(tmp_path / "other", size=64))
    options = ("pack", "--out", str(tmp_path / "kit.tar"), "--model", str(bundle))
    assert run(*options) == 0
    assert not any(name.startswith("report/") for name in kits.read_kit(str(tmp_path / "kit.tar")).files)
    assert run(*options, "--report", str(folder)) == 2
    assert "another detector" in capsys.readouterr().err
    (folder / "comparison.json").write_text("[]")
    assert run(*options, "--report", str(folder)) == 2
