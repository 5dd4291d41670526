"""Bundles and data sets go to a hub and come back, over HTTP to a stand-in."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.hub import running_hub
from PIL import Image

from benchmarks.studies.small import small_contract, write_small_bundle
from board_setup.signatures import BUNDLE_SIGNATURE, sign_bundle
from board_setup.workstation.sign import make_key
from edge_runtime.errors import UsageError
from edge_runtime.model.bundle import Bundle
from edge_runtime.model.hub import HubAddress, hub_address
from export.bundle.push import bundle_card
from train.evaluation.metrics import measure

PUSH = "import sys; from export.bundle.push import *; print(push_bundle(Bundle.open(sys.argv[1]), {!r}, 'cc-by-4.0'))"


@pytest.fixture
def hub():
    pytest.importorskip("huggingface_hub", reason="needs huggingface_hub")
    with running_hub() as found:
        yield found


@pytest.fixture
def run(hub, tmp_path):
    """Runs Python with its own cache against the stand-in; `cache` names another one, `hub` another server."""

    def run(*arguments: object, **changes: str) -> subprocess.CompletedProcess[str]:
        own = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "HF_HOME": str(tmp_path / "hf"), **hub.environment}
        environment = {**os.environ, **own, **changes}
        command = [sys.executable, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)

    return run


def detect(run, address: str, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    return run("-m", "edge_runtime.cli", "a.png", "--model", address, *arguments, **changes)


@pytest.mark.slow
def test_a_bundle_goes_to_the_hub_and_comes_back(hub, run, tmp_path):
    bundle = write_small_bundle(tmp_path / "detector", small_contract(demo=True))
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(tmp_path / "a.png")
    pushed = run("-c", PUSH.format(HubAddress("user/faces")), bundle)
    first = pushed.stdout.strip().rpartition("@")[2]
    assert pushed.stdout.startswith("hf://user/faces@"), pushed.stderr
    files = hub.commits["user/faces"][first]
    assert set(files) == {"README.md", "model.json", *Bundle.open(bundle).manifest.files}
    assert files["int8/model.bin"] == (bundle / "int8/model.bin").read_bytes()
    assert hub.private == {"user/faces": True}
    card = files["README.md"].decode()
    assert 'license: "cc-by-4.0"' in card
    assert "demonstration model" in card

    done = detect(run, f"hf://user/faces@{first}")
    assert done.returncode == 0, done.stderr
    assert f"detector: hf://user/faces@{first}" in done.stderr
    # From now on the pinned one comes from the cache.
    count = len(hub.asked)
    assert detect(run, f"hf://user/faces@{first}").returncode == 0
    assert len([line for line in hub.asked[count:] if "/resolve/" in line]) == 0
    assert detect(run, f"hf://user/faces@{first}", HF_ENDPOINT="http://127.0.0.1:9").returncode == 0

    hub.commit("user/faces", {"int8/model.bin": b"other"})
    changed = detect(run, "hf://user/faces")
    assert changed.returncode == 2
    assert "int8/model.bin was changed" in changed.stderr


@pytest.mark.slow
def test_what_the_hub_refuses_is_one_line(hub, run, tmp_path):
    bundle = write_small_bundle(tmp_path / "detector")
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    hub.commit("user/other", {"README.md": b"x"})
    for address, says in (
        ("hf://user/missing", "hf://user/missing@main: not found, or not allowed"),
        ("hf://user/other", "hf://user/other@main: holds no bundle"),
        ("hf://user", "hf:/user: not an address"),
    ):
        done = detect(run, address)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert says in done.stderr
    unreachable = detect(run, "hf://user/faces", HF_ENDPOINT="http://127.0.0.1:9")
    assert "can't be reached" in unreachable.stderr
    refused = run("-c", PUSH.format(HubAddress("user/faces")), bundle, HF_TOKEN="hf_wrong")
    assert "SourceError: hf://user/faces@main: " in refused.stderr
    assert "401" in refused.stderr


@pytest.mark.slow
def test_faces_come_from_a_data_set(hub, run, tmp_path):
    random = np.random.default_rng(1)
    files = {}
    for label in ("real", "fake"):
        for number in range(12):
            Image.fromarray(random.integers(0, 255, (48, 48, 3), np.uint8)).save(tmp_path / "face.png")
            files[f"{label}/{number}.png"] = (tmp_path / "face.png").read_bytes()
    hub.commit("datasets/user/portraits", files)
    script = "import sys; from train.cli import prepare_faces_main as main; main()"
    done = run("-c", script, "hf://datasets/user/portraits", "--out", tmp_path / "prepared")
    rows = (tmp_path / "prepared/catalog.csv").read_text().splitlines()
    assert len(rows) == 25, done.stderr
    assert all("portraits" in row for row in rows[1:])
    assert "a model; give hf://datasets" in run("-c", script, "hf://user/portraits").stderr


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs openssh-client")
def test_a_signature_goes_along_and_is_checked_where_keys_are_set_up(hub, run, tmp_path):
    make_key(str(tmp_path / "lab"), passphrase=False)
    trusted = tmp_path / "config/deepfake-edge/trusted"
    trusted.mkdir(parents=True)
    shutil.copy(tmp_path / "lab.pub", trusted)
    keys = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    bundle = write_small_bundle(tmp_path / "detector")
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    unsigned = run("-c", PUSH.format(HubAddress("user/faces")), bundle).stdout.strip()
    sign_bundle(str(bundle), str(tmp_path / "lab"))
    signed = run("-c", PUSH.format(HubAddress("user/faces")), bundle).stdout.strip()
    told = f"detector: {unsigned}, unsigned\n"
    assert told in detect(run, unsigned).stderr
    assert f"detector: {signed}, signature not checked, since no keys are set up\n" in detect(run, signed).stderr

    refused = detect(run, unsigned, **keys)
    assert refused.returncode == 2
    told = f"error: {unsigned}: unsigned; this machine accepts only bundles signed with"
    assert refused.stderr.splitlines()[-1].startswith(told)
    # Also by the cache of a version that did not pull signatures.
    (path,) = (tmp_path / "cache").rglob(f"{signed.rpartition('@')[2]}/{BUNDLE_SIGNATURE}")
    path.unlink()
    done = detect(run, signed, **keys)
    assert f"detector: {signed}, signed by lab, valid until " in done.stderr
    assert detect(run, signed, HF_ENDPOINT="http://127.0.0.1:9", **keys).returncode == 0

    # Whoever may write to the repository can't sign, and a whole exchange of files does not help.
    other = write_small_bundle(tmp_path / "other", small_contract(version="6.6.6"))
    forged = run("-c", PUSH.format(HubAddress("user/faces")), other).stdout.strip()
    assert (
        f"error: {forged}: altered: its model.json is not the one that lab signed" in detect(run, forged, **keys).stderr
    )
    # Every command that names a bundle of the hub checks it.
    opened = "import sys; from edge_runtime.model.bundle import Bundle; Bundle.open(sys.argv[1])"
    assert f"BundleError: {forged}: altered" in run("-c", opened, forged, **keys).stderr


def test_addresses():
    assert hub_address("hf://user/name") == HubAddress("user/name")
    assert hub_address(Path("hf://datasets/user/a.b@v1.0")) == HubAddress("user/a.b", "v1.0", is_dataset=True)
    assert str(hub_address("hf://user/name@refs/pr/1")) == "hf://user/name@refs/pr/1"
    assert hub_address("detector/") is hub_address(None) is None
    for text in ("hf://user", "hf://user/../etc", "hf://user/name@", "hf://-u/n@ev il", "hf://a/b/c"):
        with pytest.raises(UsageError, match="not an address"):
            hub_address(text)


def test_the_card_has_figures_with_intervals(tmp_path):
    figures = measure([0, 0, 0, 1, 1, 1] * 2, [0.1, 0.2, 0.6, 0.5, 0.8, 0.9] * 2, bootstrap=100)
    bundle = Bundle.open(write_small_bundle(tmp_path / "detector", small_contract(metrics={"int8": figures})))
    card = bundle_card(bundle, HubAddress("user/faces"), "")
    auc = figures["auc"]
    assert f"| AUC | {auc['value']:.3f} ({auc['low']:.3f}–{auc['high']:.3f}) |" in card
    assert 'license: "other"' in card
    assert "sources of its reals: not stated" in card
    front = card.split("---")[1]
    assert json.loads(front.split("tags: ")[1].splitlines()[0]) == ["deepfake-detection", "face", "openvino"]
