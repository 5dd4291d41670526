"""The kit: gathered whole, checked whole, and refused where a byte differs."""

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from board_setup import cli
from board_setup.workstation import kit as kits
from board_setup.workstation.kit import KitError

WHEELS = {"wheels/pip-26.3-py3-none-any.whl": b"pip", "wheels/deepfake_edge-0.1.0-py3-none-any.whl": b"own"}


def write_bundle(folder: Path, precisions: tuple[str, ...] = ("fp32", "fp16", "int8")) -> Path:
    files = {}
    for name in [*(f"{p}/model.xml" for p in precisions), "onnx/model.onnx", "golden/golden.json"]:
        path = folder / name
        path.parent.mkdir(parents=True)
        path.write_text(name)
        files[name] = hashlib.sha256(name.encode()).hexdigest()
    (folder / "model.json").write_text(json.dumps({"contract": {"version": "1.4.0"}, "files": files, "name": "x"}))
    return folder


def write_kit(path: Path, contents: dict[str, bytes], **changes: object) -> Path:
    files = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    manifest = {"format": kits.FORMAT, "id": "1.4.0-abcd", "python": "3.11", "requirement": "deepfake-edge==0.1.0"}
    members = {kits.MANIFEST: json.dumps({**manifest, "archive": "", "files": files, **changes}).encode(), **contents}
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_the_chosen_precisions_are_taken_and_the_manifest_names_them_only(tmp_path) -> None:
    bundle = write_bundle(tmp_path / "detector")
    assert kits.take_bundle(str(bundle), str(tmp_path / "taken"), ["int8", "fp16"]) == "1.4.0"
    taken = json.loads((tmp_path / "taken" / "model.json").read_text())
    assert set(taken["files"]) == {"int8/model.xml", "fp16/model.xml", "golden/golden.json"}
    present = {str(path.relative_to(tmp_path / "taken")) for path in (tmp_path / "taken").rglob("*.*")}
    assert present == {*taken["files"], "model.json"}


def test_a_precision_that_is_not_there_is_told(tmp_path) -> None:
    bundle = write_bundle(tmp_path / "detector", ("fp32",))
    with pytest.raises(KitError, match=r"holds no int8 \(it holds fp32\)"):
        kits.take_bundle(str(bundle), str(tmp_path / "taken"), ["int8"])


def test_a_changed_bundle_is_not_packed(tmp_path) -> None:
    bundle = write_bundle(tmp_path / "detector")
    (bundle / "int8" / "model.xml").write_text("other")
    with pytest.raises(KitError, match=r"model\.xml was changed"):
        kits.take_bundle(str(bundle), str(tmp_path / "taken"), [])


def test_a_kit_is_unpacked_as_it_was(tmp_path) -> None:
    kit = kits.unpack(str(write_kit(tmp_path / "kit.tar", WHEELS)), str(tmp_path / "out"))
    assert kit.id == "1.4.0-abcd"
    assert {name: (tmp_path / "out" / name).read_bytes() for name in WHEELS} == WHEELS


@pytest.mark.parametrize("place", [0.3, 0.6, 0.99])
def test_a_kit_that_is_cut_off_is_refused(tmp_path, place) -> None:
    path = write_kit(tmp_path / "kit.tar", {name: data * 9000 for name, data in WHEELS.items()})
    whole = path.read_bytes().rstrip(b"\0")
    path.write_bytes(whole[: int(len(whole) * place)])
    with pytest.raises(KitError, match="copy or pack it again"):
        kits.unpack(str(path), str(tmp_path / "out"))


def test_a_kit_with_a_changed_byte_is_refused(tmp_path) -> None:
    path = write_kit(tmp_path / "kit.tar", WHEELS)
    path.write_bytes(path.read_bytes().replace(b"own", b"0wn"))
    with pytest.raises(KitError, match=r"deepfake_edge-0\.1\.0-py3-none-any\.whl was changed"):
        kits.unpack(str(path), str(tmp_path / "out"))


def test_a_kit_with_a_file_too_many_is_refused(tmp_path) -> None:
    path = write_kit(tmp_path / "kit.tar", WHEELS, files={})
    with pytest.raises(KitError, match=r"is not in its kit\.json"):
        kits.unpack(str(path), str(tmp_path / "out"))


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "wheels/../../outside"])
def test_a_kit_that_leads_out_of_its_folder_is_refused(tmp_path, name) -> None:
    path = write_kit(tmp_path / "kit.tar", {name: b"x"})
    with pytest.raises(KitError, match="leads out of it"):
        kits.unpack(str(path), str(tmp_path / "out"))


@pytest.mark.parametrize(("content", "message"), [(None, "not found"), (b"text", "not a kit")])
def test_what_is_no_kit_is_told(tmp_path, content, message) -> None:
    path = tmp_path / "kit.tar"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(KitError, match=message):
        kits.read_kit(str(path))


def test_another_format_is_refused(tmp_path) -> None:
    with pytest.raises(KitError, match="format 2, this tool reads 1"):
        kits.read_kit(str(write_kit(tmp_path / "kit.tar", WHEELS, format=2)))


@pytest.mark.parametrize(
    ("wheel", "needed"),
    [
        ("rich-15.0.0-py3-none-any.whl", None),
        ("numpy-2.4.6-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl", (2, 27)),
        ("pydantic_core-2.50-cp311-cp311-manylinux2014_x86_64.manylinux_2_17_x86_64.whl", (2, 17)),
        ("new-1.0-cp311-cp311-manylinux_2_34_x86_64.whl", (2, 34)),
    ],
)
def test_a_wheels_name_tells_the_c_library_that_it_needs(wheel, needed) -> None:
    assert kits.glibc_needed(wheel) == needed


def test_a_wheel_for_another_platform_is_refused() -> None:
    with pytest.raises(KitError, match="not for x86-64 Linux"):
        kits.glibc_needed("numpy-2.4.6-cp311-cp311-manylinux_2_28_aarch64.whl")


def test_a_wheel_that_needs_a_newer_c_library_than_the_board_has_is_refused(tmp_path, monkeypatch) -> None:
    def fake_pip(command: str, *arguments: str) -> None:
        (tmp_path / "wheels" / "new-1.0-cp310-cp310-manylinux_2_34_x86_64.whl").write_text("")

    monkeypatch.setattr(kits, "_build_wheel", lambda project, folder: "deepfake_edge-0.1.0-py3-none-any.whl")
    monkeypatch.setattr(kits, "_pip", fake_pip)
    with pytest.raises(KitError, match=r"needs glibc 2\.34, the board has 2\.31"):
        kits._gather_wheels(str(tmp_path / "wheels"), str(tmp_path), "3.10", "2.31")


@pytest.mark.parametrize(
    ("extras", "asked", "requirement"),
    [
        ([], "deepfake_edge-0.1.0-py3-none-any.whl", "deepfake-edge==0.1.0"),
        (["web"], "deepfake_edge-0.1.0-py3-none-any.whl[web]", "deepfake-edge[web]==0.1.0"),
        (
            ["web", "benchmarks", "web"],
            "deepfake_edge-0.1.0-py3-none-any.whl[benchmarks,web]",
            "deepfake-edge[benchmarks,web]==0.1.0",
        ),
    ],
)
def test_extras_are_gathered_and_installed_with_the_runtime(tmp_path, monkeypatch, extras, asked, requirement) -> None:
    told: list[tuple[str, ...]] = []
    monkeypatch.setattr(kits, "_build_wheel", lambda project, folder: "deepfake_edge-0.1.0-py3-none-any.whl")
    monkeypatch.setattr(kits, "_pip", lambda *arguments: told.append(arguments))
    folder = str(tmp_path / "wheels")
    assert kits._gather_wheels(folder, str(tmp_path), "3.10", "2.31", extras) == requirement
    assert told[0][-2:] == (f"{folder}/{asked}", "pip")


def test_the_extras_are_the_projects_own() -> None:
    project = (Path(__file__).resolve().parents[3] / "pyproject.toml").read_text()
    assert all(f"\n{extra} = [" in project for extra in kits.EXTRAS)


def test_constraints_are_those_of_the_boards_python() -> None:
    text = (
        "# a comment\n"
        "numpy==2.2.6 ; python_version < '3.11'\n"
        "numpy==2.4.6 ; python_version >= '3.11'\n"
        "odd==1.0 ; python_version == '3.10' and python_version < '3.13'\n"
        "rich==15.0.0\n"
    )
    assert kits.constraints_for(text, "3.10").split() == ["numpy==2.2.6", "odd==1.0", "rich==15.0.0"]
    assert kits.constraints_for(text, "3.12").split() == ["numpy==2.4.6", "rich==15.0.0"]


def test_the_projects_own_constraints_can_be_read() -> None:
    text = (Path(__file__).resolve().parents[3] / "constraints.txt").read_text()
    assert "openvino==" in kits.constraints_for(text, "3.10")


def test_a_standalone_python_of_another_version_is_refused(tmp_path) -> None:
    archive = tmp_path / "cpython.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("python/bin/python3.12"))
    (tmp_path / "kit").mkdir()
    assert kits._take_python(str(archive), str(tmp_path / "kit"), "3.12") == "python/cpython.tar.gz"
    with pytest.raises(KitError, match=r"holds no python/bin/python3\.11"):
        kits._take_python(str(archive), str(tmp_path / "kit"), "3.11")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "missing/kit.tar"], "missing/kit.tar: there is no folder "),
        (["--out", "detector"], "detector: is a folder; name a file in it, such as detector/kit.tar"),
        (["--out", "kit.tar", "--glibc", "2"], "--glibc 2: is no version with two numbers"),
        (["--out", "kit.tar", "--python-version", "new"], "--python-version new: is no version with two numbers"),
    ],
)
def test_what_can_not_be_packed_is_told_before_anything_is_downloaded(tmp_path, options, message) -> None:
    write_bundle(tmp_path / "detector")
    # A pip of this name would be the one that downloads.
    (tmp_path / "pip.py").write_text("open('downloaded', 'w')")
    command = [sys.executable, "-m", "board_setup.cli", "pack", *options]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{Path(kits.__file__).parents[2]}"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: " + message)
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "downloaded").exists()


@pytest.mark.parametrize("faces", [True, False])
def test_a_kit_without_a_face_model_is_warned_of_before_it_is_carried_to_a_board(
    tmp_path, monkeypatch, capsys, faces
) -> None:
    contents = {"bundle/int8/model.xml": b"x", **({"bundle/face/face_detection.tflite": b"x"} if faces else {})}

    def pack(out: str, model: str, **options: object) -> kits.Kit:
        return kits.unpack(str(write_kit(Path(out), {**WHEELS, **contents})), str(tmp_path / "unpacked"))

    monkeypatch.setattr(kits, "pack", pack)
    with pytest.raises(SystemExit) as ended:
        cli.main(["pack", "--out", str(tmp_path / "kit.tar")])
    said = capsys.readouterr()
    assert ended.value.code == 0
    assert f"copy it and {tmp_path}/setup-board.pyz to the board" in said.out
    assert said.err.count("\n") == (not faces)
    assert ("warning: no face model in it" in said.err) is not faces
    assert ("export-openvino … --face-model FILE" in said.err) is not faces


def test_a_kit_that_can_not_be_written_leaves_no_part_of_it(tmp_path) -> None:
    (tmp_path / "kit").mkdir()
    (tmp_path / "kit" / kits.MANIFEST).write_text("{}")
    (tmp_path / "out.tar").mkdir()
    with pytest.raises(KitError, match=r"out\.tar: can't be written"):
        kits._write_tar(str(tmp_path / "kit"), str(tmp_path / "out.tar"))
    assert {path.name for path in tmp_path.iterdir()} == {"kit", "out.tar"}


def test_the_tool_is_one_file_that_python_3_8_runs(tmp_path, python38) -> None:
    tool = tmp_path / "setup-board.pyz"
    kits.make_tool(str(tool))
    done = subprocess.run([python38, tool, "doctor", "--json"], cwd=tmp_path, capture_output=True, text=True)
    assert done.stderr == ""
    rows = {row["name"]: row for row in json.loads(done.stdout)["rows"]}
    assert rows["cpu"]["state"] == "ok"
    assert rows["runtime"]["mend"] == "sudo python3 setup-board.pyz install --kit kit.tar"


def test_every_command_explains_itself_under_python_3_8(tmp_path, python38) -> None:
    tool = tmp_path / "setup-board.pyz"
    kits.make_tool(str(tool))
    for command in ("doctor", "pack", "install", "deploy", "versions", "rollback", "status", "twin"):
        done = subprocess.run([python38, tool, command, "--help"], capture_output=True, text=True)
        assert "example: " in done.stdout, done.stderr
