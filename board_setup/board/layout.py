"""Where everything lies on a board, and which versions of Python and OpenVINO are supported."""

import os
from typing import NamedTuple

SERVICE = "deepfake-edge.service"
CAMERA = "/dev/deepfake-edge-camera"
"""A fixed name for the first camera, given by a udev rule."""

OPENVINO_FROM = (2025, 4)
OPENVINO_BELOW = (2026, 5)
"""The same range as in pyproject.toml: newer wheels may lack the kernels for CPUs without AVX."""

PYTHON_FROM = (3, 10)
PYTHON_BELOW = (3, 14)


class Layout(NamedTuple):
    """The paths below `root`, which is `/` on a board."""

    root: str = "/"

    @property
    def is_live(self) -> bool:
        """Whether this is the running system rather than a folder."""
        return os.path.realpath(self.root) == "/"

    def at(self, path: str) -> str:
        """Return the absolute `path` below the root."""
        return os.path.join(self.root, path.lstrip("/"))

    @property
    def programs(self) -> str:
        """Folder of Python, the virtual environments and this tool."""
        return self.at("/opt/deepfake-edge")

    @property
    def state(self) -> str:
        """Folder of the versions, the link to the current one, and the records of what was installed."""
        return self.at("/var/lib/deepfake-edge")

    @property
    def versions(self) -> str:
        """One folder per version: a bundle, plus `runtime`, a link to its virtual environment."""
        return self.state + "/versions"

    @property
    def current(self) -> str:
        """Link to the version in use."""
        return self.state + "/current"

    @property
    def python(self) -> str:
        """Python of the current version."""
        return self.current + "/runtime/bin/python"

    @property
    def runtimes(self) -> str:
        """One virtual environment per set of wheels."""
        return self.programs + "/runtimes"

    @property
    def tool(self) -> str:
        """This tool as a single file."""
        return self.programs + "/setup-board.pyz"

    @property
    def command(self) -> str:
        """Link to this tool, on the PATH."""
        return self.at("/usr/local/bin/setup-board")

    @property
    def started(self) -> str:
        """File that names the version whose service last started well."""
        return self.state + "/started"


BOARD = Layout()
"""The layout of a real board."""
