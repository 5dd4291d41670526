"""A virtual board with a kit to install: Snow Ridge under qemu, Debian, systemd, no network."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.drawn_face import draw_face
from helpers.golden import add_true_golden
from helpers.kits import make_kit
from helpers.mosquitto import PATH
from PIL import Image

from benchmarks.studies.small import write_small_bundle
from board_setup.workstation.pack import pack
from board_setup.workstation.virtual_board import VirtualBoard
from board_setup.workstation.virtual_board_image import missing_tools

VARIABLE = "DEEPFAKE_EDGE_VIRTUAL_BOARD"
BOARDS_PYTHON = "3.11"
"""Debian bookworm's."""

BROKEN = "import sys\n\ndef main():\n    sys.exit('error: this version is broken')\n"
"""A runtime that passes its check but does not run."""

READER = """
import json
import paho.mqtt.client as mqtt

out = open("/mnt/host/messages.jsonl", "a")


def write(client, _, message):
    out.write(json.dumps([message.topic, message.payload.decode()]) + "\\n")
    out.flush()


client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="reader", clean_session=False)
client.username_pw_set("door", "secret")
client.on_connect = lambda client, *_: client.subscribe("deepfake-edge/#", qos=1)
client.on_subscribe = lambda *_: out.write('["reader", "subscribed"]\\n') and out.flush()
client.on_message = write
client.connect("127.0.0.1")
client.loop_forever()
"""
"""Runs on the board and writes what the broker delivers, for this machine to read."""

SKIN = {"fake": (225, 150, 120), "real": (150, 160, 215)}
"""The tiny detector calls red pictures fake and blue ones real."""


@pytest.fixture(scope="session")
def share(tmp_path_factory: pytest.TempPathFactory, face_model: Path) -> Path:
    """The folder that the board sees as /mnt/host: kits, their tool, and faces for the camera."""
    if not os.environ.get(VARIABLE):
        pytest.skip("needs a virtual board: make test-board")
    missing = missing_tools()
    if missing:
        pytest.skip(f"needs a virtual board; {'; '.join(missing)}")
    folder = tmp_path_factory.mktemp("share")
    model = os.environ.get("DEEPFAKE_EDGE_MODEL")
    if not model:
        model = str(write_small_bundle(tmp_path_factory.mktemp("bundle") / "detector", face_model=face_model))
        add_true_golden(Path(model))
    pack(str(folder / "kit.tar"), model, python=BOARDS_PYTHON, debs=str(_driver(folder)), extras=["fleet"])
    make_kit(folder / "broken.tar", "9", detect=BROKEN, python=BOARDS_PYTHON)
    for name, skin in SKIN.items():
        _write_faces(folder / "faces" / name, skin)
    return folder


@pytest.fixture(scope="session")
def board(share: Path) -> Iterator[VirtualBoard]:
    """The board, powered on."""
    with tempfile.TemporaryDirectory(prefix="virtual-board-") as folder, VirtualBoard(folder, str(share)) as machine:
        machine.power_on()
        yield machine


@pytest.fixture(scope="session")
def broker(share: Path) -> str:
    """The board's command that starts this machine's mosquitto there, for user `door` with password `secret`."""
    folder = share / "broker"
    folder.mkdir()
    programs = [shutil.which(name, path=PATH) for name in ("mosquitto", "mosquitto_passwd")]
    if None in programs:
        pytest.skip("needs mosquitto")
    libraries = subprocess.run(["ldd", programs[0]], capture_output=True, text=True, check=True).stdout
    # All but the C library's own, which must be the board's.
    found = re.findall(r"=> (/\S+)", libraries)
    own = [path for path in found if not re.search(r"/lib(c|m|resolv)\.so", path)]
    for path in (programs[0], *own):
        shutil.copy(path, folder)
    access = "allow_anonymous false\npassword_file /var/tmp/broker/passwords\n"
    # So that it keeps what the reader has not got when it is stopped.
    kept = "persistence true\npersistence_location /var/tmp/broker/\nmax_queued_messages 0\n"
    (folder / "mosquitto.conf").write_text(f"user root\nlistener 1883 127.0.0.1\n{access}{kept}")
    subprocess.run([programs[1], "-c", "-b", folder / "passwords", "door", "secret"], check=True)
    (folder / "reader.py").write_text(READER)
    return (
        "systemd-run --unit broker --collect --setenv=LD_LIBRARY_PATH=/var/tmp/broker "
        "/var/tmp/broker/mosquitto -c /var/tmp/broker/mosquitto.conf"
    )


def _driver(folder: Path) -> Path:
    """Make a Debian package in place of a driver."""
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


def _write_faces(folder: Path, skin: tuple[int, int, int]) -> None:
    """Write frames in which a drawn face moves a little, with a camera's noise."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(7)
    for number in range(8):
        frame = np.asarray(draw_face(skin, (300 + 5 * number, 240), 110)).astype(np.int16)
        frame += random.integers(-8, 9, frame.shape, dtype=np.int16)
        Image.fromarray(frame.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.jpg", quality=92)
