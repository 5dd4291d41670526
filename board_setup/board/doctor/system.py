"""What the doctor can see of a machine: files below a root, answers of commands, cameras.

With another root than `/` a recorded machine is read: its files below that folder, and its commands from
`commands.json` in it (a mapping from command line to `[exit code, output]`).
"""

import errno
import fcntl
import glob
import json
import os
import re
import struct
import subprocess
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

from board_setup.board.commands import exit_code
from board_setup.board.layout import BOARD

VIDIOC_QUERYCAP = 0x80685600
VIDIOC_ENUM_FMT = 0xC0405602
CAPTURE = 0x1
"""V4L2_CAP_VIDEO_CAPTURE, and also V4L2_BUF_TYPE_VIDEO_CAPTURE."""

NOT_PERMITTED = 126
NOT_FOUND = 127
TIMED_OUT = 124


class Done(NamedTuple):
    """How a command ended: 127 if it does not exist, 124 if it took too long, 128 + N after signal N."""

    code: int
    out: str


class System:
    """A machine, this one or a recorded one."""

    def __init__(self, root: str = "/") -> None:
        self.root = root
        self.live = os.path.realpath(root) == "/"

    @property
    def os_release(self) -> Dict[str, str]:
        """The fields of /etc/os-release."""
        return dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', self.read("/etc/os-release"), re.MULTILINE))

    @property
    def release(self) -> Tuple[str, str]:
        """The distribution and its version, such as ("ubuntu", "22.04")."""
        fields = self.os_release
        return fields.get("ID", ""), fields.get("VERSION_ID", "")

    @property
    def tool(self) -> str:
        """How this tool is called here: by its command once a kit is installed, before that by its file."""
        return "setup-board" if self.exists(BOARD.command) else f"python3 {os.path.basename(BOARD.tool)}"

    def read(self, path: str) -> str:
        """Return the stripped text of a file, empty if it can't be read."""
        try:
            with open(self._at(path), encoding="utf-8", errors="replace") as file:
                return file.read().replace("\0", " ").strip()
        except OSError:
            return ""

    def exists(self, path: str) -> bool:
        """Return whether the path exists."""
        return os.path.lexists(self._at(path))

    def glob(self, pattern: str) -> List[str]:
        """Return the matching paths, sorted, as the machine itself names them."""
        prefix = self.root.rstrip("/")
        return sorted(path[len(prefix) :] for path in glob.glob(self._at(pattern)))

    def link(self, path: str) -> str:
        """Return the target of a link, empty if it is not a link or can't be read."""
        try:
            return os.readlink(self._at(path))
        except OSError:
            return ""

    def run(self, command: Sequence[str], *, timeout_s: float = 20.0) -> Done:
        """Run a command, with its standard error joined to its output."""
        if not self.live:
            try:
                with open(os.path.join(self.root, "commands.json"), encoding="utf-8") as file:
                    return Done(*json.load(file).get(" ".join(command), [NOT_FOUND, ""]))
            except OSError:
                return Done(NOT_FOUND, "")
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=timeout_s,
                env={**os.environ, "LC_ALL": "C"},
            )
        except OSError:
            return Done(NOT_FOUND, "")
        except subprocess.TimeoutExpired:
            return Done(TIMED_OUT, "")
        return Done(exit_code(done.returncode), done.stdout.decode(errors="replace").strip())

    def camera_formats(self, path: str) -> Optional[List[str]]:
        """Return the pixel formats of a camera, such as MJPG and YUYV; None if it is not a camera or does not answer.

        Raises:
            PermissionError: this user may not open it.
        """
        if not self.live:
            done = self.run(["camera-formats", path])
            if done.code == NOT_PERMITTED:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
            return done.out.split() if done.code == 0 else None
        try:
            device = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        except PermissionError:
            raise
        except OSError:
            return None
        try:
            return _capture_formats(device)
        except OSError:
            return None
        finally:
            os.close(device)

    def _at(self, path: str) -> str:
        return path if self.live else os.path.join(self.root, path.lstrip("/"))


def _capture_formats(device: int) -> Optional[List[str]]:
    # struct v4l2_capability: three names (16, 32, 32 bytes), version, capabilities, device_caps, 3 reserved.
    answer = fcntl.ioctl(device, VIDIOC_QUERYCAP, bytes(104))
    if not struct.unpack_from("=I", answer, 88)[0] & CAPTURE:
        return None
    formats: List[str] = []
    while True:
        # struct v4l2_fmtdesc: index, type, flags, a description of 32 bytes, the format's four characters.
        question = struct.pack("=II", len(formats), CAPTURE).ljust(64, b"\0")
        try:
            answer = fcntl.ioctl(device, VIDIOC_ENUM_FMT, question)
        except OSError:
            return formats
        formats.append(answer[44:48].decode("ascii", errors="replace").strip())


def field(text: str, name: str) -> str:
    """Return the value of the first line `name: value`, empty if there is none."""
    found = re.search(rf"^{name}\s*:\s*(.*)$", text, re.MULTILINE)
    return found.group(1).strip() if found else ""


def version_numbers(text: str) -> Tuple[int, ...]:
    """Return the numbers of a version, without a Debian epoch and revision."""
    return tuple(int(number) for number in re.findall(r"\d+", text.split(":")[-1].split("-")[0]))


def dotted(numbers: Tuple[int, ...]) -> str:
    """Return a version's numbers as text."""
    return ".".join(map(str, numbers))
