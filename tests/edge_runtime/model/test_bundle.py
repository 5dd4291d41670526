"""The bundle: opened, checked, and refused with one clear line where a byte was changed."""

import hashlib
import json
from pathlib import Path

import pytest

from edge_runtime.errors import BundleError
from edge_runtime.model.bundle import MANIFEST, MODEL_VARIABLE, Bundle, Manifest, find_bundle
from edge_runtime.model.contract import ModelContract, Precision


def write_bundle(folder: Path, name: str = "detector") -> Path:
    """A bundle with two precisions whose networks are a few bytes."""
    contents = {f"{p}/model.{kind}": f"{p} {kind}".encode() for p in ("fp32", "int8") for kind in ("xml", "bin")}
    for relative, data in contents.items():
        (folder / relative).parent.mkdir(parents=True, exist_ok=True)
        (folder / relative).write_bytes(data)
    files = {relative: hashlib.sha256(data).hexdigest() for relative, data in contents.items()}
    manifest = Manifest(ModelContract("resnet50"), files, tools={"openvino": "1"}, created="2026-01-01", name=name)
    (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    return folder


def edit(folder: Path, **changes: object) -> None:
    path = folder / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


def test_a_bundle_says_what_it_holds(folder: Path) -> None:
    bundle = Bundle.open(folder)
    assert bundle.precisions == (Precision.FP32, Precision.INT8)
    assert bundle.model("int8") == folder / "int8/model.xml"
    bundle.check()


def test_a_manifest_survives_json(folder: Path) -> None:
    manifest = Bundle.open(folder).manifest
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_a_changed_byte_is_noticed_in_what_is_loaded_and_only_there(folder: Path) -> None:
    (folder / "int8/model.bin").write_bytes(b"int8 biN")
    bundle = Bundle.open(folder)
    assert bundle.model("fp32").exists()
    with pytest.raises(BundleError, match=r"int8/model\.bin was changed"):
        bundle.model("int8")
    with pytest.raises(BundleError, match=r"int8/model\.bin was changed"):
        bundle.check()


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "fp32/model.bin").unlink()
    with pytest.raises(BundleError, match=r"fp32/model\.bin: can't be read"):
        Bundle.open(folder).model(Precision.FP32)


def test_a_precision_that_is_not_inside_is_refused_with_those_that_are(folder: Path) -> None:
    with pytest.raises(BundleError, match=r"holds no fp16 \(it holds fp32, int8\)"):
        Bundle.open(folder).model("fp16")


def test_a_file_that_the_manifest_does_not_know_is_refused(folder: Path) -> None:
    (folder / "extra").write_text("x")
    with pytest.raises(BundleError, match="extra is not in its"):
        Bundle.open(folder).file("extra")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"contract": 3, "files": {}}', "[" * 100_000])
def test_a_manifest_that_is_none_is_refused(folder: Path, text: str) -> None:
    (folder / MANIFEST).write_text(text)
    with pytest.raises(BundleError):
        Bundle.open(folder)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b", ""])
def test_a_name_that_leads_out_of_the_bundle_is_refused(folder: Path, name: str) -> None:
    edit(folder, files={name: "0" * 64})
    with pytest.raises(BundleError, match="outside the bundle"):
        Bundle.open(folder)


@pytest.mark.parametrize(
    "change", [{"files": ["a"]}, {"files": {"a": 3}}, {"files": {"a": "short"}}, {"name": 3}, {"tools": []}]
)
def test_a_manifest_with_a_part_of_the_wrong_type_is_refused(folder: Path, change: dict) -> None:
    edit(folder, **change)
    with pytest.raises(BundleError):
        Bundle.open(folder)


def test_a_folder_without_a_bundle_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="export-openvino"):
        Bundle.open(tmp_path)
    with pytest.raises(BundleError, match="export-openvino"):
        Bundle.open(tmp_path / "missing")


def test_a_bundle_is_looked_for_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.delenv(MODEL_VARIABLE, raising=False)
    monkeypatch.setattr("edge_runtime.model.bundle.INSTALLED", write_bundle(tmp_path / "installed", "installed"))
    assert find_bundle().manifest.name == "installed"
    write_bundle(here / "detector", "beside")
    assert find_bundle().manifest.name == "beside"
    monkeypatch.setenv(MODEL_VARIABLE, str(write_bundle(tmp_path / "environment", "environment")))
    assert find_bundle().manifest.name == "environment"
    assert find_bundle(write_bundle(tmp_path / "given", "given")).manifest.name == "given"


def test_without_any_bundle_the_places_looked_at_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(MODEL_VARIABLE, raising=False)
    monkeypatch.setattr("edge_runtime.model.bundle.INSTALLED", tmp_path / "nowhere")
    with pytest.raises(BundleError, match=r"--model.*DEEPFAKE_EDGE_MODEL.*\./detector"):
        find_bundle()


def test_the_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_bundle(tmp_path / "mine")
    assert Bundle.open("~/mine").path == tmp_path / "mine"
