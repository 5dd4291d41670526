"""A whole virtual board: qemu with the board's CPU, Debian with systemd, a virtual camera, no network.

A board runs on an overlay of the cached image, so it can be rebooted, lose its power, and be thrown away. Commands
reach it through a virtio serial port, files through a shared folder at /mnt/host.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
from typing import Any, Dict, List, NamedTuple, Optional

from board_setup.board.kit import TOOL, read_kit
from board_setup.workstation.twin import CPU
from board_setup.workstation.virtual_board_image import (
    SHARE,
    TOOLS_FOLDER,
    Image,
    VirtualBoardError,
    make_image,
    run_step,
)

BOOT_TIMEOUT_S = 600.0
COMMAND_TIMEOUT_S = 600.0
HERE = os.path.dirname(os.path.abspath(__file__))
AGENT = os.path.join(HERE, "virtual_board_agent.py")
CAMERA = os.path.join(HERE, "virtual_board_camera.py")

START_CAMERA = (
    "modprobe v4l2loopback video_nr=0 exclusive_caps=1 card_label=Faces; "
    f"systemd-run --collect python3 {SHARE}/{TOOLS_FOLDER}/camera.py /dev/video0 {SHARE}/camera"
)


class Result(NamedTuple):
    """How a command on the board ended; `code` is 124 if its time limit stopped it."""

    code: int
    out: str
    err: str


class VirtualBoard:
    """A virtual board and its disk, which survives reboots and power cuts.

    Attributes:
        share: the folder of this machine that the board sees as /mnt/host.
        console: the file with everything that the board printed.
    """

    def __init__(self, folder: str, share: str, *, image: Optional[Image] = None) -> None:
        self.share = share
        self._folder = folder
        self._image = image or make_image()
        self._disk = os.path.join(folder, "disk.qcow2")
        self.console = os.path.join(folder, "console.log")
        self._socket = os.path.join(folder, "control")
        self._qemu: Optional[subprocess.Popen] = None
        self._connection: Optional[socket.socket] = None
        self._received = b""
        tools = os.path.join(share, TOOLS_FOLDER)
        os.makedirs(tools, exist_ok=True)
        shutil.copy(AGENT, os.path.join(tools, "agent.py"))
        shutil.copy(CAMERA, os.path.join(tools, "camera.py"))
        if not os.path.exists(self._disk):
            backing = ["-b", os.path.abspath(self._image.disk), "-F", "raw"]
            run_step(["qemu-img", "create", "-q", "-f", "qcow2", *backing, self._disk])

    def __enter__(self) -> "VirtualBoard":
        return self

    def __exit__(self, *details: object) -> None:
        self.power_cut()

    def power_on(self, timeout_s: float = BOOT_TIMEOUT_S, *, interactive: bool = False) -> None:
        """Start the board and wait until it takes commands; `interactive` shows its console on this terminal.

        Raises:
            VirtualBoardError: it did not within `timeout_s`; the message holds the console's last lines.
        """
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._socket)
        with open(self.console, "ab") as log:
            streams = {} if interactive else {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            self._qemu = subprocess.Popen(self.command(interactive), **streams)  # type: ignore[call-overload]
        deadline = time.monotonic() + timeout_s
        while self._connection is None:
            self._check_running(deadline)
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(self._socket)
                self._connection = connection
            except OSError:
                connection.close()
                time.sleep(0.5)
        # The port keeps what is written before the agent opens it.
        self._send({"command": "true", "timeout_s": 10.0})
        self._receive(deadline)

    def wait(self) -> int:
        """Wait until the board is powered off and return qemu's exit code."""
        return self._qemu.wait() if self._qemu else 0

    def command(self, interactive: bool = False) -> List[str]:
        """Return qemu's command line."""
        return [
            *("qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", CPU, "-smp", "2", "-m", "3G"),
            *("-nographic", "-no-reboot", "-nic", "none"),
            *("-kernel", self._image.kernel, "-initrd", self._image.initrd),
            *("-append", "root=/dev/vda rw console=ttyS0 " + ("" if interactive else "quiet")),
            *("-drive", f"file={self._disk},format=qcow2,if=virtio"),
            *("-virtfs", f"local,path={self.share},mount_tag=host,security_model=none"),
            *("-chardev", f"socket,id=control,path={self._socket},server=on,wait=off"),
            *("-device", "virtio-serial", "-device", "virtserialport,chardev=control,name=virtual-board"),
        ]

    def run(self, command: str, *, timeout_s: float = COMMAND_TIMEOUT_S, check: bool = True) -> Result:
        """Run a shell command as root on the board.

        Raises:
            VirtualBoardError: the board does not answer, or `check` is set and the command failed.
        """
        self._send({"command": command, "timeout_s": timeout_s})
        answer = self._receive(time.monotonic() + timeout_s + 30.0)
        result = Result(answer["code"], answer["out"], answer["err"])
        if check and result.code:
            raise VirtualBoardError(f"on the board, {command!r} ended with {result.code}:\n{result.out}{result.err}")
        return result

    def reboot(self, timeout_s: float = BOOT_TIMEOUT_S) -> None:
        """Shut the board down and start it again."""
        self.power_off()
        self.power_on(timeout_s)

    def power_off(self, timeout_s: float = BOOT_TIMEOUT_S) -> None:
        """Shut the board down."""
        self._send({"command": "systemctl poweroff", "timeout_s": 30.0})
        self._disconnect()
        if self._qemu:
            self._qemu.wait(timeout_s)

    def power_cut(self) -> None:
        """Cut the power; whatever was not yet written is lost."""
        self._disconnect()
        if self._qemu:
            self._qemu.kill()
            self._qemu.wait()
            self._qemu = None

    def _check_running(self, deadline: float) -> None:
        stopped = self._qemu is None or self._qemu.poll() is not None
        if stopped or time.monotonic() > deadline:
            with open(self.console, encoding="utf-8", errors="replace") as file:
                last = "".join(file.readlines()[-12:])
            raise VirtualBoardError(f"the virtual board {'stopped' if stopped else 'does not answer'}:\n{last}")

    def _send(self, message: Dict[str, object]) -> None:
        if self._connection is None:
            raise VirtualBoardError("the virtual board is off")
        self._connection.sendall(json.dumps(message).encode() + b"\n")

    def _receive(self, deadline: float) -> Dict[str, Any]:
        if self._connection is None:
            raise VirtualBoardError("the virtual board is off")
        self._connection.settimeout(1.0)
        while b"\n" not in self._received:
            self._check_running(deadline)
            with contextlib.suppress(socket.timeout):
                self._received += self._connection.recv(65536)
        line, _, self._received = self._received.partition(b"\n")
        return json.loads(line)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None
        self._received = b""


def open_console(kit: Optional[str] = None, camera: Optional[str] = None) -> int:
    """Start a virtual board with its console on this terminal, and delete it afterwards.

    Args:
        kit: a kit to install on it.
        camera: a folder of JPEG pictures of one size to show at /dev/video0; the kernel's test picture by default.

    Raises:
        KitError: the kit can't be read.
        VirtualBoardError: the board can't be made or started, or the installation failed.
    """
    from export.children.scratch import ScratchFolder

    with contextlib.ExitStack() as stack:
        folder = str(stack.enter_context(ScratchFolder()))
        share = os.path.join(folder, "share")
        os.makedirs(share)
        fill_share(share, kit, camera)
        board = stack.enter_context(VirtualBoard(folder, share))
        print("starting a virtual board; it needs no login; `poweroff` or Ctrl-A X ends it\r", flush=True)
        board.power_on(interactive=True)
        board.run(START_CAMERA if camera else "modprobe vivid n_devs=1")
        if kit:
            board.run(f"python3 {SHARE}/setup-board.pyz install --kit {SHARE}/kit.tar > /dev/ttyS0", timeout_s=1800.0)
        return board.wait()


def fill_share(share: str, kit: Optional[str], camera: Optional[str]) -> None:
    """Copy a kit with its tool, and the camera's pictures, into the shared folder.

    Raises:
        KitError: the kit can't be read.
        VirtualBoardError: its tool is missing, or the folder has no pictures.
    """
    if camera:
        advice = "give a folder of JPEG pictures of one size"
        try:
            names = [name for name in os.listdir(camera) if name.lower().endswith((".jpg", ".jpeg"))]
        except OSError as error:
            raise VirtualBoardError(f"{camera}: {error.strerror}; {advice}") from None
        if not names:
            raise VirtualBoardError(f"{camera}: has no .jpg; {advice}")
        os.mkdir(os.path.join(share, "camera"))
        for number, name in enumerate(sorted(names)):
            shutil.copy(os.path.join(camera, name), os.path.join(share, "camera", f"{number:06}.jpg"))
    if kit:
        read_kit(kit)
        tool = os.path.join(os.path.dirname(kit), TOOL)
        if not os.path.exists(tool):
            raise VirtualBoardError(f"{tool}: not found; setup-board pack writes it beside the kit")
        shutil.copy(kit, os.path.join(share, "kit.tar"))
        shutil.copy(tool, share)
