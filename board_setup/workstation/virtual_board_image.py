"""The virtual board's disk image: Debian with systemd and a virtual camera, made once with debootstrap and cached."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from typing import List, NamedTuple, Sequence

from board_setup.errors import BoardError

SUITE = "bookworm"
MIRROR_VARIABLE = "DEEPFAKE_EDGE_DEBIAN_MIRROR"
"""Environment variable with the Debian mirror to use instead of debootstrap's default."""

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
"""Commands that this machine needs, and their Debian packages."""

DISK_SIZE = "6G"
SHARE = "/mnt/host"
"""Where the board mounts the shared folder."""

TOOLS_FOLDER = ".virtual-board"
"""Inside the shared folder: programs for the board come from there, so that they need no new image."""

AGENT_UNIT = f"""[Unit]
Description=Runs the commands of the machine outside
[Service]
# The kernel registers the file system type some moments before it has found the shared folder.
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

    @classmethod
    def at(cls, folder: str) -> "Image":
        """Return the image in a folder; its files may not exist yet."""
        return cls(*(os.path.join(folder, name) for name in ("disk.img", "vmlinuz", "initrd")))

    def is_complete(self) -> bool:
        """Return whether all its files exist."""
        return all(map(os.path.exists, self))


def missing_tools() -> List[str]:
    """Return what this machine lacks for a virtual board, as commands that fix it; empty if nothing is missing."""
    search = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    lacking = sorted(package for tool, package in TOOLS.items() if not shutil.which(tool, path=search))
    missing = ["apt-get install " + " ".join(lacking)] if lacking else []
    if os.geteuid() != 0 and not Image.at(image_folder()).is_complete():
        missing.append("run it as root once (debootstrap needs it)")
    return missing


def image_folder() -> str:
    """Return where the user's cache keeps the image of this recipe."""
    from edge_runtime.paths import cache_folder

    parts = (SUITE, PACKAGES, CAMERA_PACKAGES, DISK_SIZE, AGENT_UNIT, CONSOLE_LOGIN, FSTAB)
    recipe = hashlib.sha256(repr(parts).encode()).hexdigest()[:12]
    return str(cache_folder() / "virtual-board" / recipe)


def make_image() -> Image:
    """Return the cached image; makes it first if the recipe has changed (minutes; needs root and a network).

    Raises:
        VirtualBoardError: a tool is missing or a step failed; the message holds the step's last lines.
    """
    missing = missing_tools()
    if missing:
        raise VirtualBoardError("the virtual board can't be made here; " + "; ".join(missing))
    target = image_folder()
    cache = os.path.dirname(target)
    os.makedirs(cache, exist_ok=True)
    with open(os.path.join(cache, "lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if Image.at(target).is_complete():
            return Image.at(target)
        # We hold the lock, so these folders were left by a killed run.
        for name in os.listdir(cache):
            if name.startswith("making-"):
                shutil.rmtree(os.path.join(cache, name), ignore_errors=True)
        work = tempfile.mkdtemp(prefix="making-", dir=cache)
        try:
            _make_files(work, Image.at(os.path.join(work, "ready")))
            shutil.rmtree(target, ignore_errors=True)
            os.rename(os.path.join(work, "ready"), target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return Image.at(target)


def _make_files(work: str, image: Image) -> None:
    """Make the image's files in its folder, from a Debian root in `work`."""
    root = os.path.join(work, "root")
    mirror = os.environ.get(MIRROR_VARIABLE, "").split()
    run_step(["debootstrap", "--variant=minbase", "--include=" + ",".join(PACKAGES), SUITE, root, *mirror])
    _build_camera_module(root, os.path.join(work, "builder"))
    os.makedirs(root + SHARE)
    units = os.path.join(root, "etc", "systemd", "system")
    for path, text in (
        (os.path.join(units, "virtual-board-agent.service"), AGENT_UNIT),
        (os.path.join(units, "serial-getty@ttyS0.service.d", "login.conf"), CONSOLE_LOGIN),
        (os.path.join(root, "etc", "hostname"), "virtual-board\n"),
        (os.path.join(root, "etc", "fstab"), FSTAB),
    ):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    run_step(["chroot", root, "systemctl", "enable", "virtual-board-agent.service"])
    run_step(["chroot", root, "passwd", "-d", "root"])
    for unneeded in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale", "usr/share/man"):
        shutil.rmtree(os.path.join(root, unneeded), ignore_errors=True)
    os.mkdir(os.path.dirname(image.disk))
    boot = os.path.join(root, "boot")
    for prefix, target in (("vmlinuz-", image.kernel), ("initrd.img-", image.initrd)):
        name = next(name for name in sorted(os.listdir(boot)) if name.startswith(prefix))
        shutil.copy(os.path.join(boot, name), target)
    run_step(["mke2fs", "-q", "-t", "ext4", "-d", root, image.disk, DISK_SIZE])


def _build_camera_module(root: str, builder: str) -> None:
    """Build v4l2loopback in a copy of the root that has the kernel headers, and move only the module to the root."""
    run_step(["cp", "-a", root, builder])
    shutil.copy("/etc/resolv.conf", os.path.join(builder, "etc", "resolv.conf"))
    run_step(["mount", "--bind", "/proc", os.path.join(builder, "proc")])
    try:
        run_step(["chroot", builder, "apt-get", "update"])
        run_step(["chroot", builder, "apt-get", "install", "-y", "--no-install-recommends", *CAMERA_PACKAGES])
    finally:
        run_step(["umount", os.path.join(builder, "proc")])
    release = os.listdir(os.path.join(root, "lib", "modules"))[0]
    built = os.path.join("lib", "modules", release, "updates", "dkms")
    shutil.copytree(os.path.join(builder, built), os.path.join(root, built))
    run_step(["chroot", root, "depmod", release])
    shutil.rmtree(builder)


def run_step(command: Sequence[str]) -> None:
    """Run a command.

    Raises:
        VirtualBoardError: it failed; the message holds its last lines.
    """
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if done.returncode:
        last = " | ".join(done.stdout.decode(errors="replace").strip().splitlines()[-3:])
        raise VirtualBoardError(f"{' '.join(command)} ended with {done.returncode}: {last}")
