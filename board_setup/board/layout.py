"""Where everything lies on a board, and what versions of the world it is made for."""

import os
from typing import NamedTuple

SERVICE = "deepfake-edge.service"
CAMERA = "/dev/deepfake-edge-camera"
"""A name for the first camera that stays, given by a udev rule."""

OPENVINO_FROM = (2025, 4)
OPENVINO_BELOW = (2026, 5)
"""The same range as in pyproject.toml: newer wheels may have lost the kernels for CPUs without AVX."""

PYTHON_FROM = (3, 10)
PYTHON_BELOW = (3, 14)


class Layout(NamedTuple):
    """The paths below `root`, which is `/` on a board."""

    root: str = "/"

    def at(self, path: str) -> str:
        """Return the absolute `path` below the root."""
        return os.path.join(self.root, path.lstrip("/"))

    @property
    def programs(self) -> str:
        """Python, the virtual environments and this tool."""
        return self.at("/opt/deepfake-edge")

    @property
    def state(self) -> str:
        """Versions, the link to the current one, and what was installed."""
        return self.at("/var/lib/deepfake-edge")

    @property
    def versions(self) -> str:
        """A folder for each version: a bundle, in which `runtime` is a link to its virtual environment."""
        return self.state + "/versions"

    @property
    def current(self) -> str:
        """A link to the version in use."""
        return self.state + "/current"

    @property
    def python(self) -> str:
        """The current version's Python."""
        return self.current + "/runtime/bin/python"

    @property
    def runtimes(self) -> str:
        """A virtual environment for each set of wheels."""
        return self.programs + "/runtimes"

    @property
    def tool(self) -> str:
        """This tool, as a single file."""
        return self.programs + "/setup-board.pyz"

    @property
    def command(self) -> str:
        """A link to this tool, so that it is a command."""
        return self.at("/usr/local/bin/setup-board")


BOARD = Layout()
