"""What can be seen of a machine: its files below a root, the answers of commands, its cameras.

With another root than `/` a recorded machine is read: the same files below that folder, and commands answered from
`commands.json` in it (a mapping from command line to `[exit code, output]`).
"""

import errno
import fcntl
import glob
import json
import os
import struct
import subprocess
from typing import List, NamedTuple, Optional, Sequence

VIDIOC_QUERYCAP = 0x80685600
VIDIOC_ENUM_FMT = 0xC0405602
CAPTURE = 0x1
"""V4L2_CAP_VIDEO_CAPTURE, and V4L2_BUF_TYPE_VIDEO_CAPTURE as it happens."""

NOT_PERMITTED = 126
NOT_FOUND = 127
TIMED_OUT = 124


class Done(NamedTuple):
    """How a command ended: 127 where it does not exist, 124 where it took too long, 128 + N after signal N."""

    code: int
    out: str


class System:
    """A machine, this one or a recorded one."""

    def __init__(self, root: str = "/") -> None:
        self.root = root
        self.live = os.path.realpath(root) == "/"

    def read(self, path: str) -> str:
        """Return the text of a file without white space around it, empty where it can't be read."""
        try:
            with open(self._at(path), encoding="utf-8", errors="replace") as file:
                return file.read().replace("\0", " ").strip()
        except OSError:
            return ""

    def exists(self, path: str) -> bool:
        """Say whether there is such a path."""
        return os.path.lexists(self._at(path))

    def glob(self, pattern: str) -> List[str]:
        """Return the paths that match, sorted, as the machine itself names them."""
        prefix = self.root.rstrip("/")
        return sorted(path[len(prefix) :] for path in glob.glob(self._at(pattern)))

    def link(self, path: str) -> str:
        """Return where a link points, empty where it is none or may not be read."""
        try:
            return os.readlink(self._at(path))
        except OSError:
            return ""

    def run(self, command: Sequence[str], *, timeout_s: float = 20.0) -> Done:
        """Run a command, its standard error with its output."""
        if not self.live:
            return Done(*self._recorded(" ".join(command)))
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
        code = done.returncode if done.returncode >= 0 else 128 - done.returncode
        return Done(code, done.stdout.decode(errors="replace").strip())

    def camera_formats(self, path: str) -> Optional[List[str]]:
        """Return the pixel formats of a camera, such as MJPG and YUYV; None where it is none or can't be asked.

        Raises:
            PermissionError: it may not be opened.
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
            return _formats(device)
        except OSError:
            return None
        finally:
            os.close(device)

    def _at(self, path: str) -> str:
        return path if self.live else os.path.join(self.root, path.lstrip("/"))

    def _recorded(self, command: str) -> List:
        try:
            with open(os.path.join(self.root, "commands.json"), encoding="utf-8") as file:
                return json.load(file).get(command, [NOT_FOUND, ""])
        except OSError:
            return [NOT_FOUND, ""]


def _formats(device: int) -> Optional[List[str]]:
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
