"""The runtime's own check: what it tells of a bundle, as JSON, to whoever set it up."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import openvino as ov

from edge_runtime.model.bundle import sha256
from edge_runtime.model.golden import Golden


def checked(bundle: Path) -> tuple[int, dict]:
    command = [sys.executable, "-I", "-m", "edge_runtime.model.check", "--model", str(bundle)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def test_a_whole_bundle_answers_in_the_precision_that_the_cpu_would_use(bundle_path):
    code, found = checked(bundle_path)
    assert (code, found["error"]) == (0, None)
    assert found["bundle"].startswith(f"{bundle_path}: redness 1.4.0, fp32, int8, 4 files whole")
    assert found["answer"].startswith("int8 on CPU: logits ")
    assert found["faces"] is False
    assert found["openvino"] in ov.get_version()


def test_a_changed_file_is_told_also_one_that_the_cpu_would_not_load(bundle_path, tmp_path):
    shutil.copytree(bundle_path, tmp_path / "changed")
    (tmp_path / "changed" / "fp32" / "model.bin").write_bytes(b"other")
    code, found = checked(tmp_path / "changed")
    assert code == 2
    assert "fp32/model.bin was changed" in found["error"]


def test_a_demonstration_model_is_called_one(demo_path):
    assert "no verdict on photographs" in checked(demo_path)[1]["bundle"]


def test_a_missing_bundle_is_told(tmp_path):
    code, found = checked(tmp_path)
    assert code == 2
    assert "no bundle" in found["error"]


def test_a_machine_that_computes_something_else_is_told(bundle_path, tmp_path, red):
    folder = tmp_path / "detector"
    shutil.copytree(bundle_path, folder)
    (folder / "golden").mkdir()
    red.save(folder / "golden" / "0.png")
    golden = Golden(["golden/0.png"], {"native": "here"}, {"int8": {"native": [[9.0, -9.0]]}}, {"int8": {"CPU": 0.01}})
    (folder / "golden" / "golden.json").write_text(golden.to_json())
    manifest = json.loads((folder / "model.json").read_text())
    for name in ("golden/0.png", "golden/golden.json"):
        manifest["files"][name] = sha256(folder / name)
    (folder / "model.json").write_text(json.dumps(manifest))
    code, found = checked(folder)
    assert code == 2
    assert found["error"].startswith("CPU int8: WRONG, logits within ")
