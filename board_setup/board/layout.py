"""Where everything is on a board, and which versions of Python and OpenVINO are supported."""

import os

SERVICE = "deepfake-edge.service"
FORWARD = "deepfake-edge-forward.service"
CAMERA = "/dev/deepfake-edge-camera"
"""A fixed name for the first camera, given by a udev rule."""

OPENVINO_FROM = (2025, 4)
OPENVINO_BELOW = (2026, 5)
"""The same range as in pyproject.toml: newer wheels may lack the kernels for CPUs without AVX."""

PYTHON_FROM = (3, 10)
PYTHON_BELOW = (3, 14)


class Layout:
    """The paths below `root`, which is `/` on a board.

    Attributes:
        programs: Python, the virtual environments and this tool.
        state: the versions, the link to the current one, and the records of what was installed.
        versions: one folder per version: a bundle, plus `runtime`, a link to its virtual environment.
        current: link to the version in use.
        python: Python of the version in use.
        runtimes: one virtual environment per set of wheels.
        tool: this tool as a single file.
        command: link to this tool, on the PATH.
        started: file that names the version whose service last started well.
        trusted: folder of the keys with which kits must be signed; without it, none need be.
        measured: file that names the version whose fastest device was last looked for.
    """

    def __init__(self, root: str = "/") -> None:
        self.root = root
        self.programs = self.at("/opt/deepfake-edge")
        self.state = self.at("/var/lib/deepfake-edge")
        self.versions = self.state + "/versions"
        self.current = self.state + "/current"
        self.python = self.current + "/runtime/bin/python"
        self.runtimes = self.programs + "/runtimes"
        self.tool = self.programs + "/setup-board.pyz"
        self.command = self.at("/usr/local/bin/setup-board")
        self.started = self.state + "/started"
        self.trusted = self.at("/etc/deepfake-edge/trusted")
        self.measured = self.state + "/measured"

    @property
    def is_live(self) -> bool:
        """Whether this is the running system rather than a folder."""
        return os.path.realpath(self.root) == "/"

    def at(self, path: str) -> str:
        """Return the absolute `path` below the root."""
        return os.path.join(self.root, path.lstrip("/"))


BOARD = Layout()
"""The layout of a real board."""
