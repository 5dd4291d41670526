"""Signed manifests, made by the real library with an authority of our own."""

import csv
import io
import json
import shutil
import subprocess
import sys

import pytest
from helpers.content_credentials import make_authority, signed_jpeg
from PIL import Image

from board_setup.workstation.twin import twin_command, twin_environment
from edge_runtime.errors import UsageError
from edge_runtime.pixels.content_credentials import TRUST_VARIABLE
from edge_runtime.pixels.provenance import picture_provenance, video_provenance

PICTURE = Image.linear_gradient("L").resize((64, 64)).convert("RGB")


@pytest.fixture(scope="module")
def authority():
    pytest.importorskip("c2pa", reason="needs c2pa-python")
    return make_authority()


@pytest.fixture(scope="module")
def signed(authority):
    return signed_jpeg(PICTURE, *authority[1:], "trainedAlgorithmicMedia")


def test_present_intact_trusted_and_ai_are_told_apart(authority, signed, monkeypatch, tmp_path):
    (tmp_path / "root.pem").write_text(authority[0])
    (tmp_path / "other.pem").write_text(make_authority()[0])
    photo = signed_jpeg(PICTURE, *authority[1:], "digitalCapture")
    found = {"present": True, "intact": True, "trusted": None, "says_ai": True, "signer": "Tests"}
    said = picture_provenance(signed).to_dict()
    assert said == {"kind": "C2PA manifest", "text": "trainedAlgorithmicMedia", "c2pa": found}
    for name, trusted in (("root.pem", True), ("other.pem", False)):
        monkeypatch.setenv(TRUST_VARIABLE, str(tmp_path / name))
        assert picture_provenance(signed).to_dict()["c2pa"] == {**found, "trusted": trusted}
    assert picture_provenance(photo).to_dict()["c2pa"]["says_ai"] is False
    assert picture_provenance(photo).claim is None
    monkeypatch.setenv(TRUST_VARIABLE, str(tmp_path / "missing.pem"))
    with pytest.raises(UsageError, match=r"missing\.pem can't be read"):
        picture_provenance(signed)


def test_a_manifest_that_does_not_belong_is_not_intact(signed):
    changed = bytearray(signed)
    changed[-100] ^= 1
    assert picture_provenance(bytes(changed)).credentials.intact is False
    cut = signed[: len(signed) // 2]
    for data in (cut, signed.replace(b"jumb", b"jumx")):
        credentials = picture_provenance(data).credentials
        assert credentials is None or credentials.intact is not True


def test_without_the_library_its_presence_alone_is_told(signed, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    credentials = picture_provenance(signed).credentials
    assert (credentials.intact, credentials.trusted, credentials.says_ai) == (None, None, True)
    assert str(credentials) == "C2PA not checked, says AI"


def test_nothing_is_said_about_a_file_without_marks(tmp_path):
    PICTURE.save(tmp_path / "a.jpg")
    assert picture_provenance(tmp_path / "a.jpg").to_dict() is None
    assert picture_provenance(tmp_path / "missing.jpg").to_dict() is None
    assert video_provenance(tmp_path / "missing.mp4").to_dict() is None
    (tmp_path / "v.mp4").write_bytes(bytes(3 << 20) + b'Iptc4xmpExt:DigitalSourceType="x/trainedAlgorithmicMedia"')
    assert video_provenance(tmp_path / "v.mp4").claim.kind.value == "DigitalSourceType"


def test_the_results_of_files_carry_it(signed, tmp_path, bundle_path):
    (tmp_path / "signed.jpg").write_bytes(signed)
    buffer = io.BytesIO()
    PICTURE.save(buffer, "JPEG")
    (tmp_path / "plain.jpg").write_bytes(buffer.getvalue())
    command = [sys.executable, "-m", "edge_runtime.cli", "plain.jpg", "signed.jpg", "--model", str(bundle_path)]
    done = subprocess.run(
        [*command, "--jsonl", "out.jsonl", "--csv", "out.csv"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "[the file says C2PA manifest: " in done.stdout
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    found = {line["source"]: line["provenance"] for line in lines if line["state"] == "ok"}
    assert found["plain.jpg"] is None
    assert found["signed.jpg"]["c2pa"]["intact"] is True
    with (tmp_path / "out.csv").open(newline="") as file:
        says = {row["source"]: row["provenance"] for row in csv.DictReader(file)}
    assert says == {"plain.jpg": "", "signed.jpg": "C2PA manifest: trainedAlgorithmicMedia; C2PA intact, says AI"}


@pytest.mark.slow
def test_manifests_are_checked_with_the_boards_instructions(signed, tmp_path):
    if shutil.which("qemu-x86_64") is None:
        pytest.skip("needs qemu-user")
    (tmp_path / "signed.jpg").write_bytes(signed)
    script = "from edge_runtime.pixels.provenance import picture_provenance as p; import sys; print(p(sys.argv[1]))"
    command = twin_command([sys.executable, "-c", script, str(tmp_path / "signed.jpg")])
    done = subprocess.run(command, env=twin_environment(), capture_output=True, text=True)
    assert "C2PA intact, says AI" in done.stdout, done.stderr
