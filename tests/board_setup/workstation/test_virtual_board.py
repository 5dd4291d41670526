"""The parts of the virtual board that run without one: camera, command line, image cache, messages."""

import subprocess
import sys
from pathlib import Path

import pytest
from helpers.kits import make_kit
from PIL import Image

from board_setup import cli
from board_setup.workstation import twin, virtual_board, virtual_board_agent, virtual_board_camera, virtual_board_image
from board_setup.workstation.virtual_board import VirtualBoard
from board_setup.workstation.virtual_board_image import VirtualBoardError


@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_size_is_read(tmp_path: Path, progressive: bool) -> None:
    path = tmp_path / "face.jpg"
    Image.new("RGB", (321, 123)).save(path, progressive=progressive, comment=b"x" * 300)
    assert virtual_board_camera.jpeg_size(path.read_bytes()) == (321, 123)


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n" + bytes(40), b"\xff\xd8\xff\xe0" + bytes(40)])
def test_other_data_is_not_a_jpeg(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a JPEG"):
        virtual_board_camera.jpeg_size(data)


def test_agent_returns_code_and_output() -> None:
    answer = virtual_board_agent.answer({"command": "echo out; echo err >&2; exit 3", "timeout_s": 20})
    assert answer == {"code": 3, "out": "out\n", "err": "err\n"}


def test_agent_stops_a_slow_command() -> None:
    answer = virtual_board_agent.answer({"command": "echo begun; exec sleep 60", "timeout_s": 0.5})
    assert (answer["code"], answer["out"]) == (124, "begun\n")


def test_missing_tools_are_named(monkeypatch) -> None:
    monkeypatch.setattr(virtual_board_image, "TOOLS", {"none-such": "some-package", "sh": "dash"})
    assert virtual_board_image.missing_tools()[0] == "apt-get install some-package"
    with pytest.raises(VirtualBoardError, match="apt-get install some-package"):
        virtual_board_image.make_image()


def test_image_is_cached_by_recipe(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = Path(virtual_board_image.image_folder())
    assert before.parent == tmp_path / "deepfake-edge" / "virtual-board"
    monkeypatch.setattr(virtual_board_image, "PACKAGES", (*virtual_board_image.PACKAGES, "one-more"))
    assert Path(virtual_board_image.image_folder()) != before


def test_killed_run_leaves_no_folder(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    left = Path(virtual_board_image.image_folder()).with_name("making-left")
    left.mkdir(parents=True)

    def run_step(command: list[str]) -> None:
        raise VirtualBoardError("no network")

    monkeypatch.setattr(virtual_board_image, "missing_tools", list)
    monkeypatch.setattr(virtual_board_image, "run_step", run_step)
    with pytest.raises(VirtualBoardError, match="no network"):
        virtual_board_image.make_image()
    assert [path.name for path in left.parent.iterdir()] == ["lock"]


@pytest.fixture
def board(monkeypatch, tmp_path: Path) -> VirtualBoard:
    monkeypatch.setattr(virtual_board, "run_step", lambda command: None)
    image = virtual_board_image.Image("disk", "kernel", "initrd")
    return VirtualBoard(str(tmp_path), str(tmp_path / "share"), image=image)


def test_board_has_snow_ridge_and_no_network(board) -> None:
    command = board.command()
    assert command[command.index("-cpu") + 1] == twin.CPU
    assert command[command.index("-nic") + 1] == "none"
    assert Path(board.share, virtual_board_image.TOOLS_FOLDER, "agent.py").exists()


def test_board_that_is_off_takes_no_commands(board) -> None:
    with pytest.raises(VirtualBoardError, match="is off"):
        board.run("true")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--camera", "none-such"], "none-such: No such file or directory; give a folder of JPEG pictures"),
        (["--camera", "picture.jpg"], "picture.jpg: Not a directory; give a folder of JPEG pictures"),
        (["--camera", "alone"], "alone: has no .jpg; give a folder of JPEG pictures"),
        (["--kit", "none-such.tar"], "none-such.tar: not found; make a kit with"),
        (["--kit", "alone/kit.tar"], "alone/setup-board.pyz: not found; setup-board pack writes it beside the kit"),
    ],
)
def test_bad_option_is_one_line(tmp_path: Path, monkeypatch, capsys, options, message) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "picture.jpg").write_bytes(b"")
    (tmp_path / "alone").mkdir()
    make_kit(tmp_path / "alone" / "kit.tar", "1")
    with pytest.raises(SystemExit) as ended:
        cli.main(["twin", "--system", *options])
    told = capsys.readouterr().err
    assert (ended.value.code, told.count("\n")) == (2, 1)
    assert told.startswith("error: " + message)


def test_camera_runs_alone(tmp_path: Path) -> None:
    """On the board it has a bare Python and not this package."""
    script = tmp_path / "camera.py"
    script.write_text(Path(str(virtual_board_camera.__file__)).read_text())
    done = subprocess.run([sys.executable, "-I", script, "--help"], capture_output=True, text=True)
    assert "v4l2loopback" in done.stdout
