"""Bundles are opened, checked, and refused with one line if a byte was changed."""

import hashlib
import json
from dataclasses import replace
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
    manifest = replace(manifest, trained_on={"sources": ["ffhq"], "generators": []})
    (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


def test_a_bundle_lists_its_content(folder: Path) -> None:
    bundle = Bundle.open(folder)
    assert bundle.precisions == (Precision.FP32, Precision.INT8)
    assert bundle.model("int8") == folder / "int8/model.xml"
    bundle.check()
    assert Manifest.from_json(bundle.manifest.to_json()) == bundle.manifest


def test_a_changed_byte_is_noticed_when_loaded(folder: Path) -> None:
    (folder / "int8/model.bin").write_bytes(b"int8 biN")
    bundle = Bundle.open(folder)
    assert bundle.model("fp32").exists()
    for check in (lambda: bundle.model("int8"), bundle.check):
        with pytest.raises(BundleError, match=r"int8/model\.bin was changed"):
            check()


def test_what_is_not_in_the_bundle_is_refused(folder: Path) -> None:
    (folder / "fp32/model.bin").unlink()
    (folder / "extra").write_text("x")
    bundle = Bundle.open(folder)
    with pytest.raises(BundleError, match=r"fp32/model\.bin: can't be read"):
        bundle.model(Precision.FP32)
    with pytest.raises(BundleError, match=r"holds no fp16 \(it holds fp32, int8\)"):
        bundle.model("fp16")
    with pytest.raises(BundleError, match="extra is not in its"):
        bundle.file("extra")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"contract": 3, "files": {}}', "[" * 100_000])
def test_a_broken_manifest_is_refused(folder: Path, text: str) -> None:
    (folder / MANIFEST).write_text(text)
    with pytest.raises(BundleError):
        Bundle.open(folder)


@pytest.mark.parametrize(
    "change",
    [
        *({"files": {name: "0" * 64}} for name in ("../outside", "/etc/passwd", "a/../../b", "")),
        *({"files": ["a"]}, {"files": {"a": 3}}, {"files": {"a": "short"}}),
        *({"name": 3}, {"name": "\x1b[2J"}, {"tools": []}, {"trained_on": {"sources": "ffhq"}}),
    ],
)
def test_wrong_parts_are_refused(folder: Path, change: dict) -> None:
    path = folder / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(BundleError):
        Bundle.open(folder)


def test_a_folder_without_a_bundle_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(BundleError, match="export-openvino"):
            Bundle.open(path)


def test_bundles_are_searched_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("edge_runtime.model.bundle.INSTALLED", tmp_path / "installed")
    monkeypatch.setattr("edge_runtime.model.bundle.SHIPPED", tmp_path / "detectors")
    with pytest.raises(BundleError, match=r"--model.*DEEPFAKE_EDGE_MODEL.*\./detector"):
        find_bundle()
    write_bundle(tmp_path / "detectors" / "faces", "ours")
    assert find_bundle().origin.startswith("faces, shipped with deepfake-edge 0.")
    write_bundle(tmp_path / "installed", "installed")
    assert find_bundle().manifest.name == "installed"
    assert find_bundle().origin == str(tmp_path / "installed")
    write_bundle(here / "detector", "beside")
    assert find_bundle().manifest.name == "beside"
    monkeypatch.setenv(MODEL_VARIABLE, str(write_bundle(tmp_path / "environment", "environment")))
    assert find_bundle().manifest.name == "environment"
    write_bundle(tmp_path / "given", "given")
    assert find_bundle("~/given").manifest.name == "given"
