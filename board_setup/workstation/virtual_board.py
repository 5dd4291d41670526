"""A whole virtual board: qemu with the board's CPU, Debian with systemd, a virtual camera, no network.

The image is made once with debootstrap (root needed) and kept in the user's cache folder. A board runs on a copy of it
that is written on top (an overlay), so that it can be rebooted, lose its power, and be thrown away. Commands reach it
through a virtio serial port, files through a shared folder at /mnt/host.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

from board_setup.errors import BoardError
from board_setup.workstation.kit import TOOL, read_kit

SUITE = "bookworm"
MIRROR_VARIABLE = "DEEPFAKE_EDGE_DEBIAN_MIRROR"
"""Names another Debian mirror than debootstrap's own."""

PACKAGES = (
    "systemd-sysv",
    "udev",
    "dbus",
    "kmod",
    "python3",
    "linux-image-amd64",
    "initramfs-tools",
    "libgl1",
    "libglib2.0-0",
    "v4l-utils",
)
CAMERA_PACKAGES = ("linux-headers-amd64", "v4l2loopback-dkms")
TOOLS = {"debootstrap": "debootstrap", "qemu-system-x86_64": "qemu-system-x86", "qemu-img": "qemu-utils"}
"""What this machine must have: command and Debian package."""

DISK_SIZE = "6G"
BOOT_TIMEOUT_S = 600.0
COMMAND_TIMEOUT_S = 600.0
HERE = os.path.dirname(os.path.abspath(__file__))
AGENT = os.path.join(HERE, "virtual_board_agent.py")
CAMERA = os.path.join(HERE, "virtual_board_camera.py")

SHARE = "/mnt/host"
TOOLS_FOLDER = ".virtual-board"
"""Inside the shared folder: what runs on the board comes from outside, so that the image need not know it."""

AGENT_UNIT = f"""[Unit]
Description=Runs the commands of the machine outside
[Service]
# The kernel knows the kind of file system some moments before it has found the machine outside.
ExecStartPre=/bin/sh -c 'until mountpoint -q {SHARE} || mount {SHARE}; do sleep 0.5; done'
ExecStart=/usr/bin/python3 {SHARE}/{TOOLS_FOLDER}/agent.py
Restart=always
RestartSec=1
[Install]
WantedBy=multi-user.target
"""

CONSOLE_LOGIN = """[Service]
ExecStart=
ExecStart=-/sbin/agetty --autologin root --noclear --keep-baud 115200 %I vt220
"""


FSTAB = f"""/dev/vda / ext4 defaults,noatime 0 1
host {SHARE} 9p trans=virtio,version=9p2000.L,noauto 0 0
"""


class VirtualBoardError(BoardError):
    """The virtual board can't be made, started or reached."""


class Image(NamedTuple):
    """The files that a virtual board starts from."""

    disk: str
    kernel: str
    initrd: str


class Result(NamedTuple):
    """What a command on the board ended with; `code` is 124 where it was stopped by its time limit."""

    code: int
    out: str
    err: str


def missing_tools() -> List[str]:
    """Name what this machine lacks for a virtual board, each with what mends it; empty where nothing is missing."""
    lacking = sorted(package for tool, package in TOOLS.items() if not _which(tool))
    missing = ["apt-get install " + " ".join(lacking)] if lacking else []
    if os.geteuid() != 0 and not _made_image():
        missing.append("run it as root once (debootstrap needs it)")
    return missing


def make_image() -> Image:
    """Return the image, made anew where the cache has none of this recipe (some minutes, needs root and a network).

    Raises:
        VirtualBoardError: a tool is missing or a step failed; the step's last lines are told.
    """
    missing = missing_tools()
    if missing:
        raise VirtualBoardError("the virtual board can't be made here; " + "; ".join(missing))
    os.makedirs(cache_folder(), exist_ok=True)
    with open(os.path.join(cache_folder(), "lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = _made_image()
        return made or _make_image_anew()


def cache_folder() -> str:
    """Return the folder that keeps the image, under the user's XDG cache."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "deepfake-edge", "virtual-board")


def _recipe() -> str:
    parts = (SUITE, PACKAGES, CAMERA_PACKAGES, DISK_SIZE, AGENT_UNIT, CONSOLE_LOGIN, FSTAB)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


def _image_at(folder: str) -> Image:
    return Image(*(os.path.join(folder, name) for name in ("disk.img", "vmlinuz", "initrd")))


def _made_image() -> Optional[Image]:
    image = _image_at(os.path.join(cache_folder(), _recipe()))
    return image if all(os.path.exists(path) for path in image) else None


def _make_image_anew() -> Image:
    target = os.path.join(cache_folder(), _recipe())
    work = tempfile.mkdtemp(prefix="making-", dir=cache_folder())
    try:
        root = os.path.join(work, "root")
        mirror = os.environ.get(MIRROR_VARIABLE, "").split()
        included = "--include=" + ",".join(PACKAGES)
        _step(["debootstrap", "--variant=minbase", included, SUITE, root, *mirror])
        _build_camera(root, os.path.join(work, "builder"))
        _furnish(root)
        ready = os.path.join(work, "ready")
        os.mkdir(ready)
        image = _image_at(ready)
        shutil.copy(_only(os.path.join(root, "boot"), "vmlinuz-"), image.kernel)
        shutil.copy(_only(os.path.join(root, "boot"), "initrd.img-"), image.initrd)
        _step(["mke2fs", "-q", "-t", "ext4", "-d", root, image.disk, DISK_SIZE])
        shutil.rmtree(target, ignore_errors=True)
        os.rename(ready, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return _image_at(target)


def _build_camera(root: str, builder: str) -> None:
    """Build v4l2loopback against Debian's kernel headers in a copy of the root, and put the module alone into it."""
    _step(["cp", "-a", root, builder])
    shutil.copy("/etc/resolv.conf", os.path.join(builder, "etc", "resolv.conf"))
    _step(["mount", "--bind", "/proc", os.path.join(builder, "proc")])
    try:
        _step(["chroot", builder, "apt-get", "update"])
        _step(["chroot", builder, "apt-get", "install", "-y", "--no-install-recommends", *CAMERA_PACKAGES])
    finally:
        _step(["umount", os.path.join(builder, "proc")])
    release = os.listdir(os.path.join(root, "lib", "modules"))[0]
    built = os.path.join("lib", "modules", release, "updates", "dkms")
    shutil.copytree(os.path.join(builder, built), os.path.join(root, built))
    _step(["chroot", root, "depmod", release])
    shutil.rmtree(builder)


def _furnish(root: str) -> None:
    """Put the agent's start, the shared folder and a console that needs no password into the root."""
    os.makedirs(root + SHARE)
    units = os.path.join(root, "etc", "systemd", "system")
    _write(os.path.join(units, "virtual-board-agent.service"), AGENT_UNIT)
    _write(os.path.join(units, "serial-getty@ttyS0.service.d", "login.conf"), CONSOLE_LOGIN)
    _write(os.path.join(root, "etc", "hostname"), "virtual-board\n")
    _write(os.path.join(root, "etc", "fstab"), FSTAB)
    _step(["chroot", root, "systemctl", "enable", "virtual-board-agent.service"])
    _step(["chroot", root, "passwd", "-d", "root"])
    for waste in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale", "usr/share/man"):
        shutil.rmtree(os.path.join(root, waste), ignore_errors=True)


def _step(command: Sequence[str]) -> None:
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if done.returncode:
        last = "\n".join(done.stdout.decode(errors="replace").splitlines()[-8:])
        raise VirtualBoardError(f"{' '.join(command)} ended with {done.returncode}:\n{last}")


def _write(path: str, text: str) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def _only(folder: str, prefix: str) -> str:
    return os.path.join(folder, next(name for name in sorted(os.listdir(folder)) if name.startswith(prefix)))


def _which(tool: str) -> Optional[str]:
    return shutil.which(tool, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


class VirtualBoard:
    """A virtual board and its disk, which outlives reboots and power cuts and ends with `close`.

    Attributes:
        share: a folder of this machine that the board sees as /mnt/host.
        console: the file that keeps what the board printed.
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
            _step(["qemu-img", "create", "-q", "-f", "qcow2", *backing, self._disk])

    def __enter__(self) -> "VirtualBoard":
        return self

    def __exit__(self, *details: object) -> None:
        self.power_cut()

    def power_on(self, timeout_s: float = BOOT_TIMEOUT_S, *, interactive: bool = False) -> None:
        """Start the board and wait until it takes commands; `interactive` puts its console on this terminal.

        Raises:
            VirtualBoardError: it did not within `timeout_s`; the console's last lines are told.
        """
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._socket)
        with open(self.console, "ab") as log:
            streams = {} if interactive else {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            self._qemu = subprocess.Popen(self.command(interactive), **streams)  # type: ignore[call-overload]
        self._connect(time.monotonic() + timeout_s)

    def wait(self) -> int:
        """Wait until the board is switched off and return qemu's exit code."""
        return self._qemu.wait() if self._qemu else 0

    def command(self, interactive: bool = False) -> List[str]:
        """Return qemu's command line."""
        return [
            *("qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "Snowridge", "-smp", "2", "-m", "3G"),
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
            VirtualBoardError: the board does not answer, or `check` and it ended with another code than 0.
        """
        self._send({"command": command, "timeout_s": timeout_s})
        answer = self._receive(time.monotonic() + timeout_s + 30.0)
        result = Result(answer["code"], answer["out"], answer["err"])
        if check and result.code:
            raise VirtualBoardError(f"on the board, {command!r} ended with {result.code}:\n{result.out}{result.err}")
        return result

    def reboot(self, timeout_s: float = BOOT_TIMEOUT_S) -> None:
        """Shut the board down in order and start it again."""
        self.power_off()
        self.power_on(timeout_s)

    def power_off(self, timeout_s: float = BOOT_TIMEOUT_S) -> None:
        """Shut the board down in order."""
        self._send({"command": "systemctl poweroff", "timeout_s": 30.0})
        self._disconnect()
        if self._qemu:
            self._qemu.wait(timeout_s)

    def power_cut(self) -> None:
        """Take the board's power away; what it had not yet written is lost."""
        self._disconnect()
        if self._qemu:
            self._qemu.kill()
            self._qemu.wait()
            self._qemu = None

    def _connect(self, deadline: float) -> None:
        while True:
            self._check_running(deadline)
            try:
                self._connection = socket.socket(socket.AF_UNIX)
                self._connection.connect(self._socket)
                break
            except OSError:
                self._disconnect()
                time.sleep(0.5)
        # What is written before the agent has opened its port is kept for it.
        self._send({"command": "true", "timeout_s": 10.0})
        self._receive(deadline)

    def _check_running(self, deadline: float) -> None:
        if self._qemu is None or self._qemu.poll() is not None:
            raise VirtualBoardError(f"the virtual board stopped:\n{self._last_lines()}")
        if time.monotonic() > deadline:
            raise VirtualBoardError(f"the virtual board does not answer:\n{self._last_lines()}")

    def _last_lines(self) -> str:
        with open(self.console, encoding="utf-8", errors="replace") as file:
            return "".join(file.readlines()[-12:])

    def _send(self, message: Dict[str, object]) -> None:
        if self._connection is None:
            raise VirtualBoardError("the virtual board is off")
        self._connection.sendall(json.dumps(message).encode() + b"\n")

    def _receive(self, deadline: float) -> Dict[str, Any]:
        assert self._connection is not None
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
    """Start a virtual board with its console on this terminal, and throw it away afterwards.

    Args:
        kit: is installed on it, if given.
        camera: a folder of JPEG pictures of one size, shown at /dev/video0; without it the kernel's test picture is.

    Raises:
        KitError: the kit can't be read.
        VirtualBoardError: it can't be made or started, or the installation failed.
    """
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="virtual-board-"))
        share = os.path.join(folder, "share")
        os.makedirs(share)
        _share(share, kit, camera)
        board = stack.enter_context(VirtualBoard(folder, share))
        print("a virtual board starts; log in is not asked; `poweroff` or Ctrl-A X ends it\r", flush=True)
        board.power_on(interactive=True)
        board.run(START_FACES if camera else "modprobe vivid n_devs=1")
        if kit:
            board.run(f"python3 {SHARE}/setup-board.pyz install --kit {SHARE}/kit.tar > /dev/ttyS0", timeout_s=1800.0)
        return board.wait()


START_FACES = (
    "modprobe v4l2loopback video_nr=0 exclusive_caps=1 card_label=Faces; "
    f"systemd-run --collect python3 {SHARE}/{TOOLS_FOLDER}/camera.py /dev/video0 {SHARE}/camera"
)


def _share(share: str, kit: Optional[str], camera: Optional[str]) -> None:
    if camera:
        pictures = _jpegs(camera)
        if not pictures:
            raise VirtualBoardError(f"{camera}: holds no .jpg; give a folder of JPEG pictures of one size")
        os.mkdir(os.path.join(share, "camera"))
        for number, name in enumerate(sorted(pictures)):
            shutil.copy(os.path.join(camera, name), os.path.join(share, "camera", f"{number:06}.jpg"))
    if kit:
        _share_kit(share, kit)


def _jpegs(folder: str) -> List[str]:
    try:
        return [name for name in os.listdir(folder) if name.lower().endswith((".jpg", ".jpeg"))]
    except OSError as error:
        raise VirtualBoardError(f"{folder}: {error.strerror}; give a folder of JPEG pictures of one size") from None


def _share_kit(share: str, kit: str) -> None:
    read_kit(kit)
    tool = os.path.join(os.path.dirname(kit), TOOL)
    if not os.path.exists(tool):
        raise VirtualBoardError(f"{tool}: not found; it is written beside the kit by setup-board pack")
    shutil.copy(kit, os.path.join(share, "kit.tar"))
    shutil.copy(tool, share)
