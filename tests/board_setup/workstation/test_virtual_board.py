"""The virtual board's parts that need no virtual board: its camera, its command line, what is missing here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from board_setup.workstation import virtual_board, virtual_board_agent, virtual_board_camera
from board_setup.workstation.virtual_board import VirtualBoard, VirtualBoardError


@pytest.mark.parametrize("progressive", [False, True])
def test_the_cameras_pictures_tell_their_size(tmp_path: Path, progressive: bool) -> None:
    path = tmp_path / "face.jpg"
    Image.new("RGB", (321, 123)).save(path, progressive=progressive, comment=b"x" * 300)
    assert virtual_board_camera.jpeg_size(path.read_bytes()) == (321, 123)


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n" + bytes(40), b"\xff\xd8\xff\xe0" + bytes(40)])
def test_what_is_no_jpeg_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a JPEG"):
        virtual_board_camera.jpeg_size(data)


def test_a_command_on_the_board_ends_with_its_code_and_output() -> None:
    answer = virtual_board_agent.answer({"command": "echo out; echo err >&2; exit 3", "timeout_s": 20})
    assert answer == {"code": 3, "out": "out\n", "err": "err\n"}


def test_a_command_that_takes_too_long_is_stopped() -> None:
    answer = virtual_board_agent.answer({"command": "echo begun; exec sleep 60", "timeout_s": 0.5})
    assert (answer["code"], answer["out"]) == (124, "begun\n")


def test_missing_tools_are_told_with_what_brings_them(monkeypatch) -> None:
    monkeypatch.setattr(virtual_board, "TOOLS", {"none-such": "some-package", "sh": "dash"})
    assert virtual_board.missing_tools()[0] == "apt-get install some-package"
    with pytest.raises(VirtualBoardError, match="apt-get install some-package"):
        virtual_board.make_image()


def test_the_image_lies_in_the_users_cache_by_its_recipe(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert virtual_board.cache_folder() == str(tmp_path / "deepfake-edge" / "virtual-board")
    before = virtual_board._recipe()
    monkeypatch.setattr(virtual_board, "PACKAGES", (*virtual_board.PACKAGES, "one-more"))
    assert virtual_board._recipe() != before


def test_the_board_has_snow_ridge_and_no_network(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(virtual_board, "_step", lambda command: None)
    image = virtual_board.Image("disk", "kernel", "initrd")
    command = VirtualBoard(str(tmp_path), str(tmp_path / "share"), image=image).command()
    assert command[command.index("-cpu") + 1] == "Snowridge"
    assert command[command.index("-nic") + 1] == "none"
    assert (tmp_path / "share" / virtual_board.TOOLS_FOLDER / "agent.py").exists()


def test_a_board_that_is_off_takes_no_commands(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(virtual_board, "_step", lambda command: None)
    image = virtual_board.Image("disk", "kernel", "initrd")
    with pytest.raises(VirtualBoardError, match="is off"):
        VirtualBoard(str(tmp_path), str(tmp_path / "share"), image=image).run("true")


def test_an_empty_camera_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(VirtualBoardError, match=r"holds no \.jpg"):
        virtual_board._share(str(tmp_path), None, str(tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--camera", "none-such"], "none-such: No such file or directory; give a folder of JPEG pictures"),
        (["--camera", "picture.jpg"], "picture.jpg: Not a directory; give a folder of JPEG pictures"),
        (["--kit", "none-such.tar"], "none-such.tar: not found; make a kit with"),
    ],
)
def test_what_a_virtual_board_can_not_be_given_is_told_in_one_line(tmp_path: Path, options, message) -> None:
    (tmp_path / "picture.jpg").write_bytes(b"")
    command = [sys.executable, "-m", "board_setup.cli", "twin", "--system", *options]
    environment = {**os.environ, "PYTHONPATH": str(Path(virtual_board.__file__).parents[2])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("error: " + message)


def test_a_kit_without_its_tool_is_told(tmp_path: Path, make_kit) -> None:
    kit = make_kit(tmp_path / "kit.tar", "1")
    with pytest.raises(VirtualBoardError, match=r"setup-board\.pyz: not found; it is written beside the kit"):
        virtual_board._share(str(tmp_path), str(kit), None)


def test_the_camera_is_a_program_of_its_own(tmp_path: Path) -> None:
    """It runs on the board's bare Python, from a shared folder, without this package."""
    script = tmp_path / "camera.py"
    script.write_text(Path(str(virtual_board_camera.__file__)).read_text())
    done = subprocess.run([sys.executable, "-I", script, "--help"], capture_output=True, text=True)
    assert "v4l2loopback" in done.stdout
