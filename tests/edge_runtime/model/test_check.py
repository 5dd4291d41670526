"""The runtime's self-check: what it prints about a bundle, as JSON, for `setup-board`."""

import json
import shutil
import subprocess
import sys

import openvino as ov
import pytest
from helpers.golden import add_golden

from edge_runtime.model.check import check
from edge_runtime.model.golden import Golden


@pytest.fixture
def checked(capsys):
    def run(bundle):
        code = check(str(bundle))
        return code, json.loads(capsys.readouterr().out)

    return run


def test_a_whole_bundle_answers(bundle_path):
    command = [sys.executable, "-I", "-m", "edge_runtime.model.check", "--model", str(bundle_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert (done.stderr, found["error"], found["faces"]) == ("", None, False)
    assert found["bundle"].startswith(f"{bundle_path}, unsigned: redness 1.4.0, fp32, int8, 4 files whole")
    assert found["answer"].startswith("int8 on CPU: logits ")
    assert found["openvino"] in ov.get_version()


def test_no_driver_is_loaded(checked, bundle_path, monkeypatch):
    """To list the devices OpenVINO loads all drivers, and one may hang."""
    listed = []
    monkeypatch.setattr(ov.Core, "available_devices", property(lambda core: listed.append(core) or ["CPU"]))
    assert checked(bundle_path)[0] == 0
    assert listed == []


def test_any_changed_file_is_reported(checked, bundle_path, tmp_path):
    shutil.copytree(bundle_path, tmp_path / "changed")
    (tmp_path / "changed" / "fp32" / "model.bin").write_bytes(b"other")
    code, found = checked(tmp_path / "changed")
    assert code == 2
    assert "fp32/model.bin was changed" in found["error"]


def test_a_demonstration_model_is_called_one(checked, demo_path):
    assert "no verdict on photographs" in checked(demo_path)[1]["bundle"]


def test_a_missing_bundle_is_reported(checked, tmp_path):
    code, found = checked(tmp_path)
    assert code == 2
    assert "no bundle" in found["error"]


def test_a_wrong_machine_is_reported(checked, bundle_path, tmp_path, red):
    shutil.copytree(bundle_path, tmp_path / "detector")
    answers, tolerance = {"int8": {"native": [[9.0, -9.0]]}}, {"int8": {"CPU": 0.01}}
    add_golden(tmp_path / "detector", Golden(["golden/0.png"], {"native": "here"}, answers, tolerance), [red])
    code, found = checked(tmp_path / "detector")
    assert code == 2
    assert found["error"].startswith("CPU int8: WRONG, logits within ")
