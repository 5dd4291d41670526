"""Signed bundles: real keys and signatures by ssh-keygen; what a machine with trusted keys refuses to judge with."""

import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.studies.small import small_contract, write_small_bundle
from board_setup import signatures
from board_setup.cli import main as setup_board
from board_setup.signatures import BUNDLE_SIGNATURE, sign_bundle
from board_setup.workstation.sign import make_key
from edge_runtime.errors import BundleError
from edge_runtime.model import trust
from edge_runtime.model.bundle import MANIFEST, Bundle, find_bundle
from export.bundle.atomic import check_target

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs openssh-client")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for name in ("lab", "stranger"):
        make_key(str(folder / name), passphrase=False)
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_small_bundle(tmp_path / "detector")


@pytest.fixture
def trusted(tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This user's folder of trusted keys, with the key `lab` in it."""
    folder = tmp_path / "config" / "deepfake-edge" / "trusted"
    folder.mkdir(parents=True)
    shutil.copy(keys / "lab.pub", folder)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return folder


def refusal(bundle: Path) -> str:
    with pytest.raises(BundleError) as caught:
        find_bundle(bundle)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{bundle}: ")


def test_without_keys_it_is_used_and_called_unsigned(bundle, keys, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    assert find_bundle(bundle).origin == f"{bundle}, unsigned"
    sign_bundle(str(bundle), str(keys / "lab"))
    assert find_bundle(bundle).origin == f"{bundle}, signature not checked, since no keys are set up"


def test_signed_bundle_is_used_and_names_its_signer(bundle, keys, trusted) -> None:
    sign_bundle(str(bundle), str(keys / "lab"), valid_days=1, now=time.time())
    day = signatures.day(time.time() + 86400)
    assert find_bundle(bundle).origin == f"{bundle}, signed by lab, valid until {day}"
    # The signature is part of the bundle: a new export may replace both.
    check_target(bundle, replace=True)


def test_unsigned_bundle_is_refused(bundle, trusted) -> None:
    assert refusal(bundle).startswith(f"unsigned; this machine accepts only bundles signed with a key in {trusted}; ")
    # Measuring it, or signing it, needs no trust.
    assert Bundle.open(bundle).signed == ""


def test_bundle_of_a_stranger_is_refused(bundle, keys, trusted) -> None:
    sign_bundle(str(bundle), str(keys / "stranger"))
    assert refusal(bundle).startswith("forged, or signed with a key that is not trusted here (trusted are lab)")


def test_expired_bundle_is_refused(bundle, keys, trusted) -> None:
    sign_bundle(str(bundle), str(keys / "lab"), valid_days=1, now=time.time() - 86401)
    assert refusal(bundle).startswith("its signature expired on ")


def test_signature_of_a_kit_is_refused(bundle, keys, trusted) -> None:
    sign_bundle(str(bundle), str(keys / "lab"), namespace="deepfake-edge-kit")
    assert refusal(bundle) == "forged: its signature is for another purpose (deepfake-edge-kit); do not use it"


def test_altered_manifest_is_refused(bundle, keys, trusted) -> None:
    sign_bundle(str(bundle), str(keys / "lab"))
    path = bundle / MANIFEST
    path.write_text(path.read_text().replace('"low": 0.3', '"low": 0.1'))
    assert refusal(bundle) == "altered: its model.json is not the one that lab signed; copy or sign it again"


def test_altered_file_is_refused(bundle, keys, trusted) -> None:
    sign_bundle(str(bundle), str(keys / "lab"))
    (bundle / "int8" / "model.bin").write_bytes(b"other")
    with pytest.raises(BundleError, match=r"int8/model\.bin was changed"):
        find_bundle(bundle).model("int8")


def test_signature_of_another_bundle_is_refused(bundle, keys, trusted, tmp_path) -> None:
    other = write_small_bundle(tmp_path / "other", small_contract(version="2.0.0"))
    sign_bundle(str(other), str(keys / "lab"))
    shutil.copy(other / BUNDLE_SIGNATURE, bundle)
    assert refusal(bundle).startswith("altered: ")


@pytest.mark.slow
def test_no_flipped_bit_of_a_signature_is_accepted(bundle, keys, trusted) -> None:
    sign_bundle(str(bundle), str(keys / "lab"))
    path, randomness = bundle / BUNDLE_SIGNATURE, random.Random(0)
    whole = path.read_bytes()
    for _ in range(150):
        changed = bytearray(whole)
        place = randomness.randrange(8 * len(whole))
        changed[place // 8] ^= 1 << place % 8
        path.write_bytes(bytes(changed))
        assert refusal(bundle)
    path.write_bytes(whole)
    assert find_bundle(bundle).signed.startswith("signed by lab")


@pytest.mark.parametrize("text", [b"", b"{}", b"\xff\n", signatures.BEGIN])
def test_signature_that_cannot_be_read_is_refused(bundle, trusted, text) -> None:
    (bundle / BUNDLE_SIGNATURE).write_bytes(text)
    assert "damaged" in refusal(bundle)


def test_the_machines_keys_rule_out_the_users(bundle, keys, trusted, tmp_path, monkeypatch) -> None:
    machine = tmp_path / "etc"
    machine.mkdir()
    shutil.copy(keys / "stranger.pub", machine)
    monkeypatch.setattr(trust, "SYSTEM_KEYS", machine)
    sign_bundle(str(bundle), str(keys / "lab"))
    assert "(trusted are stranger)" in refusal(bundle)
    (machine / "stranger.pub").unlink()
    assert "holds no key, so every kit and bundle is refused" in refusal(bundle)


def test_installed_bundle_needs_no_signature_of_its_own(bundle, trusted, tmp_path, monkeypatch) -> None:
    """The kit that it came from was checked."""
    monkeypatch.setattr("edge_runtime.model.bundle.INSTALLED", tmp_path / "lib" / "current")
    version = tmp_path / "lib" / "versions" / "1"
    shutil.copytree(bundle, version)
    (tmp_path / "lib" / "current").symlink_to(version)
    assert find_bundle(tmp_path / "lib" / "current").origin == str(version)


def command(module: str, *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", module, *map(str, words)], capture_output=True, text=True)


@pytest.fixture
def signed_by_command(keys: Path) -> Callable[..., None]:
    def sign(bundle: Path, *options: str) -> None:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(sys, "argv", ["setup-board", "sign", str(bundle), "--key", str(keys / "lab"), *options])
            with pytest.raises(SystemExit) as ended:
                setup_board()
        if ended.value.code:
            raise AssertionError(ended.value.code)

    return sign


def test_setup_board_signs_what_edge_detect_accepts(bundle, trusted, signed_by_command, red, tmp_path, capsys) -> None:
    red.save(tmp_path / "a.png")
    refused = command("edge_runtime.cli", tmp_path / "a.png", "--model", bundle)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert refused.stderr.startswith(f"error: {bundle}: unsigned; ")
    signed_by_command(bundle, "--valid-days", "30")
    assert f"{bundle}: signed, valid until " in capsys.readouterr().out
    done = command("edge_runtime.cli", tmp_path / "a.png", "--model", bundle)
    assert done.returncode == 0, done.stderr
    assert f"detector: {bundle}, signed by lab, valid until " in done.stderr
    shadowed = write_small_bundle(tmp_path / "shadow")
    refused = command("edge_runtime.cli", tmp_path / "a.png", "--model", bundle, "--shadow", shadowed)
    assert f"error: {shadowed}: unsigned; " in refused.stderr


def test_what_cannot_be_signed_is_one_line(bundle, signed_by_command, tmp_path, capsys) -> None:
    def told(folder: Path, *options: str) -> str:
        with pytest.raises(AssertionError):
            signed_by_command(folder, *options)
        return capsys.readouterr().err

    assert "--counter and --trust are for kits" in told(bundle, "--counter", "3")
    assert "not a bundle (model.json: No such file" in told(tmp_path)
    (bundle / "int8" / "model.bin").write_bytes(b"other")
    assert "int8/model.bin is missing or was changed" in told(bundle)
    (bundle / MANIFEST).write_text("{}")
    assert "can't be read" in told(bundle)
    assert not (bundle / BUNDLE_SIGNATURE).exists()
